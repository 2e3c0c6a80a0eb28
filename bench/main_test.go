package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/bench/sample"
	"github.com/tokenbroker/tokenbroker/bench/subject"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestMain makes the test's binary a server where the benchmark starts one. The tests are inside the package, as a command has no outside.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == subject.Flag {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEverythingIsMeasuredAndEveryReplyIsRight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "result.json")
	var out bytes.Buffer
	fatal(t, command(t.Context(), []string{"-short", "-out", file}, nil, &out))
	text, err := os.ReadFile(file)
	fatal(t, err)
	var r Result
	fatal(t, json.Unmarshal(text, &r))
	if r.Errors != 0 || !r.Conditions.Short || r.Conditions.Go == "" || r.Conditions.CPUs < 1 || r.Conditions.LoadAfter == "" {
		t.Errorf("got %d errors, conditions %+v", r.Errors, r.Conditions)
	}
	var got []string
	for _, f := range r.Figures {
		if f.Value.N == 0 {
			t.Errorf("%s, %s, %s: no value", f.Measure, f.Quantity, f.Subject)
		}
		if f.Subject == product {
			got = append(got, f.Quantity)
		}
	}
	call := []string{"server CPU per call", "calls per second", "p50", "p99"}
	want := slices.Concat(call, call, []string{"from publish to the last receipt", "from the provider's answer to the last receipt", "server CPU per message",
		"RSS per idle connection", "RSS per idle stream", "heap per idle stream", "from the start of the process to the first GetToken", "heap per credential",
		"until the last worker has the last new token", "refreshed per second", "server CPU per credential, with the sandbox", "exchanges per credential"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("quantities of the product (-want +got):\n%s", diff)
	}
	var again bytes.Buffer
	fatal(t, command(t.Context(), []string{"table", file}, nil, &again))
	if again.String() != out.String() {
		t.Errorf("the table of the file is not the one that was printed:\n%s\n%s", again.String(), out.String())
	}
}

func TestOnlyWhatIsWantedIsMeasured(t *testing.T) {
	var out bytes.Buffer
	dir := t.TempDir()
	fatal(t, command(t.Context(), []string{"-short", "-only", "due", "-gogc", "200", "-profiles", dir}, nil, &out))
	if text := out.String(); !strings.Contains(text, "credentials due at once") || strings.Contains(text, "GetToken") {
		t.Errorf("got:\n%s", text)
	}
	if profiles, err := filepath.Glob(dir + "/*-product.pprof"); err != nil || len(profiles) != 1 {
		t.Errorf("got profiles %v, %v", profiles, err)
	}
}

func TestArgumentsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-only", "everything"}, {"gettoken"}, {"-short", "due"}, {"-fast"}, {"table"}, {"table", "/nonexistent"}} {
		if err := command(t.Context(), args, nil, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
	file := filepath.Join(t.TempDir(), "bad.json")
	fatal(t, os.WriteFile(file, []byte("no JSON"), 0o600))
	if err := command(t.Context(), []string{"table", file}, nil, &bytes.Buffer{}); err == nil {
		t.Error("a file that is no result was taken")
	}
}

func TestARunWithWrongRepliesFails(t *testing.T) {
	wrong := errors.New("an access token of 3 bytes")
	b := &bench{}
	r := &Result{}
	r.failed(2, wrong)
	if err := b.run(context.Background(), r, func(string) bool { return false }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
}

func TestRoundsGoThereAndBack(t *testing.T) {
	a, b, c := &contender{name: "a"}, &contender{name: "b"}, &contender{name: "c"}
	all := contenders{a, b, c}
	for round, want := range []string{"abc", "cba", "abc"} {
		got := ""
		for _, one := range all.inTurn(round) {
			got += one.name
		}
		if got != want {
			t.Errorf("round %d: got %s, want %s", round, got, want)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	fatal(t, err)
	return b
}

func tokenOf(n int) *tokenbrokerv1.Token {
	return &tokenbrokerv1.Token{AccessToken: strings.Repeat("x", n), TokenType: "Bearer", Generation: 3}
}

func TestGetTokenIsRightOnlyWithAWholeToken(t *testing.T) {
	good := marshal(t, &tokenbrokerv1.GetTokenResponse{Token: tokenOf(subject.TokenBytes), State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY})
	if err := checkGet(good); err != nil {
		t.Errorf("got %v", err)
	}
	for name, bad := range map[string][]byte{
		"nothing":             nil,
		"no token":            marshal(t, &tokenbrokerv1.GetTokenResponse{State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY}),
		"an empty token":      marshal(t, &tokenbrokerv1.GetTokenResponse{Token: &tokenbrokerv1.Token{TokenType: "Bearer"}}),
		"a byte short":        marshal(t, &tokenbrokerv1.GetTokenResponse{Token: tokenOf(subject.TokenBytes - 1)}),
		"half a message":      good[:len(good)/2],
		"no message":          {0xff, 0xff, 0xff},
		"a field with no end": {0x0a, 0x7f, 0x01},
	} {
		if checkGet(bad) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestGenerationIsThatOfAnUpdateWithAToken(t *testing.T) {
	event := func(token *tokenbrokerv1.Token) []byte {
		return marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{
			Selector: &tokenbrokerv1.Selector{Credential: "bench/a"}, Generation: 1 << 40, Revision: 9, Token: token}}})
	}
	for name, tc := range map[string]struct {
		msg  []byte
		want uint64
		ok   bool
	}{
		"an update": {event(tokenOf(subject.TokenBytes)), 1 << 40, true},
		"the end of a snapshot": {marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{
			SnapshotEnd: &tokenbrokerv1.SnapshotEnd{}}}), 0, true},
		"a heartbeat": {marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Heartbeat{
			Heartbeat: &tokenbrokerv1.Heartbeat{}}}), 0, true},
		"an update without a token": {event(nil), 0, false},
		"a short token":             {event(tokenOf(7)), 0, false},
		"a removal": {marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Removed{
			Removed: &tokenbrokerv1.Removed{}}}), 0, false},
		"nothing": {nil, 0, false},
	} {
		if got, err := generationOf(tc.msg); got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, tc.want)
		}
	}
}

func TestAStreamCountsOncePerGeneration(t *testing.T) {
	event := func(generation uint64) []byte {
		return marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{
			Update: &tokenbrokerv1.Update{Generation: generation, Token: tokenOf(subject.TokenBytes)}}})
	}
	on := (&bench{}).alike(1, 2)[0].on
	for i, tc := range []struct {
		stream     int
		generation uint64
		counts, ok bool
	}{{0, 5, true, true}, {0, 5, false, true}, {1, 5, true, true}, {0, 6, true, true}, {0, 5, false, false}} {
		if counts, err := on(tc.stream, event(tc.generation)); counts != tc.counts || (err == nil) != tc.ok {
			t.Errorf("step %d: got %v, %v", i, counts, err)
		}
	}
}

func TestFreshTokensAreTakenOncePerCredential(t *testing.T) {
	event := func(credential, token string) []byte {
		return marshal(t, &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{
			Selector: &tokenbrokerv1.Selector{Credential: credential}, Generation: 8,
			Token: &tokenbrokerv1.Token{AccessToken: token + strings.Repeat("x", subject.TokenBytes-len(token))}}}})
	}
	fresh := make([]uint64, 2)
	on := takeFresh(fresh)
	for i, tc := range []struct {
		credential, token string
		counts, ok        bool
	}{
		{subject.CredentialName(1), "seed", false, true}, {subject.CredentialName(1), "sandbox_at_", true, true},
		{subject.CredentialName(1), "sandbox_at_", false, false}, {subject.CredentialName(2), "sandbox_at_", false, false}, {"other/c1", "sandbox_at_", false, false},
	} {
		if counts, err := on(0, event(tc.credential, tc.token)); counts != tc.counts || (err == nil) != tc.ok {
			t.Errorf("step %d: got %v, %v", i, counts, err)
		}
	}
	if diff := cmp.Diff([]uint64{0, 8}, fresh); diff != "" {
		t.Errorf("generations (-want +got):\n%s", diff)
	}
}

func TestExactlyOnceIsHeldAgainstProviderAndStore(t *testing.T) {
	good := subject.Exchanges{Requests: 2, Once: 2}
	if err := exactlyOnce(good, []uint64{5, 6}, []uint64{5, 6}); err != nil {
		t.Errorf("got %v", err)
	}
	for _, e := range []subject.Exchanges{{Requests: 3, Once: 2}, {Requests: 2, Once: 1, More: 1}, {Requests: 2, Once: 2, Refused: 1}} {
		if exactlyOnce(e, []uint64{5, 6}, []uint64{5, 6}) == nil {
			t.Errorf("%+v was taken", e)
		}
	}
	if exactlyOnce(good, []uint64{5, 6}, []uint64{5, 4}) == nil {
		t.Error("a token that is not stored was taken")
	}
}

func TestComparisonsGoRoundByRound(t *testing.T) {
	q := newQuantities()
	for round := range 3 {
		weather := float64(int(1) << round) // disturbs a round for all
		q.note("CPU", "µs", reference, 10*weather)
		q.note("CPU", "µs", tuned, 8*weather)
		q.note("CPU", "µs", product, 9*weather)
		q.note("p50", "µs", product, 1)
	}
	var r Result
	q.into(&r, "GetToken", map[string]float64{tuned: 1.1})
	by := func(median float64) sample.Spread {
		return sample.Spread{Median: median, Min: median, Max: median, N: 3}
	}
	want := []Figure{
		{"GetToken", "CPU", "µs", reference, sample.Spread{Median: 20, Min: 10, Max: 40, N: 3}, nil},
		{"GetToken", "CPU", "µs", tuned, sample.Spread{Median: 16, Min: 8, Max: 32, N: 3}, []Ratio{{reference, by(0.8), 0}}},
		{"GetToken", "CPU", "µs", product, sample.Spread{Median: 18, Min: 9, Max: 36, N: 3}, []Ratio{{tuned, by(1.125), 1.1}, {reference, by(0.9), 0}}},
		{"GetToken", "p50", "µs", product, by(1), nil},
	}
	if diff := cmp.Diff(want, r.Figures); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

func TestATableOfSeveralRunsHasTheMedianOfTheirMedians(t *testing.T) {
	run := func(cpu, ratio float64) Result {
		return Result{Conditions: Conditions{Commit: "abc", Go: "go1", LoadBefore: "1 1 1"}, Figures: []Figure{
			{"GetToken", "CPU", "µs", product, sample.Spread{Median: cpu, Min: cpu - 1, Max: cpu + 1, N: 2},
				[]Ratio{{tuned, sample.Spread{Median: ratio, Min: ratio / 2, Max: ratio * 2, N: 2}, 1.1}}},
			{"GetToken", "calls", "/s", product, sample.Spread{Median: 12345.6, Min: 12345.6, Max: 12345.6, N: 1}, nil},
		}}
	}
	var out bytes.Buffer
	fatal(t, table(&out, []Result{run(10, 1), run(30, 1.5), run(20, 1.25)}))
	for _, want := range []string{
		"Run 3: ", "commit abc", "load average 1 1 1 before", "**GetToken**",
		"| CPU | product | 20 (9–31) µs | tuned ×1.25 (0.50–3.00), goal ≤ ×1.10 **missed** |\n",
		"| calls | product | 12346 (12346–12346) /s |  |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
