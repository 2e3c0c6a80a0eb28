package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// From within the package, since a command can't be imported.

func TestOnlyListenersThatThereAreAreLogged(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443}
	for _, tt := range []struct {
		admin, ops net.Addr
		want       string
	}{
		{nil, nil, "[grpc 127.0.0.1:8443]"}, {addr, nil, "[grpc 127.0.0.1:8443 admin 127.0.0.1:8443]"},
		{addr, addr, "[grpc 127.0.0.1:8443 admin 127.0.0.1:8443 ops 127.0.0.1:8443]"},
	} {
		if got := fmt.Sprint(listeners(addr, tt.admin, tt.ops)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestEachLimitComesThrough sets every key of the section to something else, and looks for it in what the server is given and in the manual.
func TestEachLimitComesThrough(t *testing.T) {
	manual, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var l limits
	set := map[float64]bool{}
	for i := range reflect.TypeFor[limits]().NumField() {
		field := reflect.ValueOf(&l).Elem().Field(i)
		switch {
		case field.CanFloat():
			field.SetFloat(float64(i + 1))
		case field.CanUint():
			field.SetUint(uint64(i + 1))
		default:
			field.SetInt(int64(i + 1))
		}
		set[float64(i+1)] = true
		if key := reflect.TypeFor[limits]().Field(i).Tag.Get("yaml"); !strings.Contains(string(manual), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not speak of limits.%s", key)
		}
	}
	out := reflect.ValueOf(l.server())
	for i := range out.NumField() {
		field := out.Field(i)
		switch {
		case field.CanFloat():
			delete(set, field.Float())
		case field.CanUint():
			delete(set, float64(field.Uint()))
		default:
			delete(set, float64(field.Int()))
		}
		if field.IsZero() {
			t.Errorf("the server's %s is not set", out.Type().Field(i).Name)
		}
	}
	if len(set) > 0 {
		t.Errorf("the keys %v do not come through", set)
	}
	if provider.Duration(l.server().Heartbeat) != l.Heartbeat {
		t.Error("the heartbeat is another's value")
	}
}

func TestHowManyConnectionsFit(t *testing.T) {
	for _, tt := range []struct {
		files  uint64
		memory int64
		want   int
	}{
		{1 << 20, 0, 50_000}, {1<<64 - 1, 0, 50_000}, {20_000, 0, 19_488}, {1024, 0, 512}, {100, 0, 64}, {0, 0, 64},
		{1 << 20, 1 << 30, 8192}, {4096, 1 << 30, 3584}, {1 << 20, 1 << 20, 64}, {1 << 20, 1 << 40, 50_000},
	} {
		if got := connsFor(tt.files, tt.memory); got != tt.want {
			t.Errorf("%d files and %d bytes: got %d connections, want %d", tt.files, tt.memory, got, tt.want)
		}
	}
}

func TestTheMemoryOfAControlGroup(t *testing.T) {
	for _, tt := range []struct {
		file, text string
		want       int64
	}{
		{"memory.max", "1073741824\n", 966367638}, {"memory.max", "max\n", 0}, {"memory.max", "", 0}, {"memory.max", "-1", 0},
		{"memory/memory.limit_in_bytes", "1000\n", 900}, {"memory/memory.limit_in_bytes", "9223372036854771712\n", 0}, {"other", "1000", 0},
	} {
		got := memoryOf("/cgroup", func(name string) ([]byte, error) {
			if name != "/cgroup/"+tt.file {
				return nil, errors.New("no such file")
			}
			return []byte(tt.text), nil
		})
		if got != tt.want {
			t.Errorf("%s %q: got %d, want %d", tt.file, tt.text, got, tt.want)
		}
	}
}
