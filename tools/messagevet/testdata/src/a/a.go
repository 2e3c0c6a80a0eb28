// Package a prints messages in every way that has to be found.
package a

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"

	tokenbrokerv1 "example.org/proto/tokenbroker/v1"
)

type wraps struct{ inner []*tokenbrokerv1.Token }

func bad(t *tokenbrokerv1.Token, logger *slog.Logger) {
	fmt.Println(t)                                         // want `passed to fmt.Println`
	_ = fmt.Sprintf("%v", *t)                              // want `passed to fmt.Sprintf`
	_ = fmt.Errorf("got %v", []*tokenbrokerv1.Token{t})    // want `passed to fmt.Errorf`
	log.Print(wraps{})                                     // want `passed to log.Print`
	slog.Info("x", "token", t)                             // want `passed to log/slog.Info`
	logger.Warn("x", slog.Any("t", t))                     // want `passed to log/slog.Any`
	_, _ = json.Marshal(map[string]*tokenbrokerv1.Token{}) // want `passed to encoding/json.Marshal`
	_ = t.String()                                         // want `turned into text`
	fmt.Println(any(t), (fmt.Stringer)((t)))               // want `passed to fmt.Println` `passed to fmt.Println`
	fmt.Println([]any{"x", t}...)                          // want `passed to fmt.Println`
	slog.Info("x", "m", map[string]any{"t": t})            // want `passed to log/slog.Info`
	if t != nil {
		panic(t) // want `passed to panic`
	}
}

func good(t *tokenbrokerv1.Token, s tokenbrokerv1.State, logger *slog.Logger) error {
	logger.Info("x", "state", s, "length", len(t.GetAccessToken()))
	_ = s.String()
	fmt.Println(any(s), []any{s.String()})
	if s > 0 {
		panic("x")
	}
	return errors.New("x")
}
