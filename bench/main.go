// Command bench measures the broker against bare grpc-go, over mutual TLS on loopback, with servers and load in processes of their own.
//
//	go run ./bench                      everything; some minutes
//	go run ./bench -short               the same in small: shows that all of it works, says nothing of speed
//	go run ./bench -only gettoken,...   some of it
//	go run ./bench -out FILE            write the result as JSON, too
//	go run ./bench table FILE...        a table, in Markdown, of one or more results
//
// See README.md for what is measured, and what is not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/tokenbroker/tokenbroker/bench/subject"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command runs what the arguments say.
func command(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	switch {
	case slices.Equal(args, []string{subject.Flag}):
		return subject.Serve(context.WithoutCancel(ctx), in, out) // an interrupt is for the driver, which then ends its servers
	case len(args) > 0 && args[0] == "table":
		return tableOf(out, args[1:])
	}
	return measureAll(ctx, args, out)
}

func measureAll(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	short := flags.Bool("short", false, "do a little of everything, to see that it works")
	file := flags.String("out", "", "write the result to this `file`, as JSON")
	only := flags.String("only", "", "comma-separated measurements: "+strings.Join(names(), ", "))
	var c choices
	flags.IntVar(&c.gogc, "gogc", 0, "GOGC of the product; 0 = as it has it")
	flags.StringVar(&c.profiles, "profiles", "", "write a CPU profile of each server into this `folder`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, name := range append(wanted, flags.Args()...) {
		if !slices.Contains(names(), name) || flags.NArg() > 0 {
			return fmt.Errorf("%q: unknown; there are %s", name, strings.Join(names(), ", "))
		}
	}
	b, remove, err := newBench(scales(*short), c)
	if err != nil {
		return err
	}
	defer remove()
	r := &Result{Conditions: conditions(ctx, *short)}
	err = b.run(ctx, r, func(name string) bool { return len(wanted) == 0 || slices.Contains(wanted, name) })
	r.Conditions.end()
	err = errors.Join(err, table(out, []Result{*r}))
	if *file == "" {
		return err
	}
	text, encErr := json.MarshalIndent(r, "", "  ")
	return errors.Join(err, encErr, os.WriteFile(*file, append(text, '\n'), 0o600))
}

// names lists the measurements.
func names() []string {
	var list []string
	for _, m := range (&bench{}).measures() {
		list = append(list, m.name)
	}
	return list
}
