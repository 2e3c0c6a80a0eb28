package usage_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/usage"
)

var noon = time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)

const job, other = "spiffe://example.org/job", "spiffe://example.org/other"

func TestWhoUsedACredentialIsKnownToTheMinute(t *testing.T) {
	b := usage.New(noon)
	use := b.Use("acme/api", job, "jobs")
	if got := b.Users("acme/api"); len(got) != 0 {
		t.Errorf("got %v before anything was used", got)
	}
	use.Mark(noon)
	use.Mark(noon.Add(20 * time.Second))
	b.Use("acme/api", other, "others").Mark(noon.Add(time.Hour))
	b.Use("acme/other", job, "jobs").Mark(noon.Add(2 * time.Hour))
	minute := noon.Truncate(time.Minute)
	want := []usage.User{{Identity: other, Rule: "others", First: noon.Add(time.Hour), Last: noon.Add(time.Hour)}, {Identity: job, Rule: "jobs", First: noon, Last: noon}}
	if diff := cmp.Diff(want, b.Users("acme/api")); diff != "" {
		t.Errorf("the latest first (-want +got)\n%s", diff)
	}
	use.Mark(noon.Add(3 * time.Hour))
	if got := b.Users("acme/api")[0]; !got.Last.Equal(minute.Add(3 * time.Hour)) {
		t.Errorf("got %v, want the start of the minute", got.Last)
	}
	if diff := cmp.Diff(map[string]time.Time{"jobs": minute.Add(3 * time.Hour), "others": minute.Add(time.Hour)}, b.Rules()); diff != "" {
		t.Errorf("rules (-want +got)\n%s", diff)
	}
	if !b.Since().Equal(noon) {
		t.Errorf("since %v, want %v", b.Since(), noon)
	}
}

func TestTheRuleThatAllowedItLastIsTold(t *testing.T) {
	b := usage.New(noon)
	b.Use("a", job, "first").Mark(noon)
	b.Use("a", job, "second").Mark(noon.Add(time.Second)) // in the same minute
	if got := b.Users("a"); len(got) != 1 || got[0].Rule != "second" || !got[0].First.Equal(noon) {
		t.Errorf("got %+v, want the second rule, and the first time", got)
	}
}

func TestABookIsBounded(t *testing.T) {
	b := usage.New(noon)
	for i := range 2 * usage.MaxIdentities {
		b.Use("a", fmt.Sprint(job, i), "jobs").Mark(noon.Add(time.Duration(i) * time.Minute))
	}
	got := b.Users("a")
	if len(got) > usage.MaxIdentities || len(got) < usage.MaxIdentities*9/10 || got[0].Identity != fmt.Sprint(job, 2*usage.MaxIdentities-1) {
		t.Errorf("got %d users, the latest %q", len(got), got[0].Identity)
	}
	for i := range usage.MaxRules + 1 {
		b.Use("b", job, fmt.Sprint("rule", i)).Mark(noon.Add(time.Duration(i) * time.Minute))
	}
	rules := b.Rules()
	if _, ok := rules[fmt.Sprint("rule", usage.MaxRules)]; len(rules) > usage.MaxRules || !ok {
		t.Errorf("got %d rules, with the latest: %v", len(rules), ok)
	}
}

func TestAWayThatIsKeptCountsAlsoAfterItWasDropped(t *testing.T) {
	b := usage.New(noon)
	use := b.Use("a", job, "jobs")
	use.Mark(noon)
	b.Forget("a")
	if got := b.Users("a"); len(got) != 0 {
		t.Errorf("got %v of a credential that was deleted", got)
	}
	use.Mark(noon.Add(time.Minute)) // it was created anew
	if got := b.Users("a"); len(got) != 1 || !got[0].First.Equal(noon.Add(time.Minute)) {
		t.Errorf("got %+v, want a use of the new life", got)
	}
}

func TestNoBookCountsNothing(t *testing.T) {
	var b *usage.Book
	b.Use("a", job, "jobs").Mark(noon)
	b.Forget("a")
	if len(b.Users("a")) != 0 || len(b.Rules()) != 0 || !b.Since().IsZero() {
		t.Error("no book says something")
	}
}

func TestManyCountAtOnce(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				b.Use("a", fmt.Sprint(job, n%7), "jobs").Mark(noon.Add(time.Duration(n) * time.Minute))
				if n%100 == i {
					b.Forget("a")
				}
				if n%50 == 0 {
					_ = b.Save(t.Context(), k)
				}
				b.Users("a")
			}
		})
	}
	wg.Wait()
	b.Use("a", job, "jobs").Mark(noon.Add(time.Hour * 24))
	if got := b.Users("a"); got[0].Identity != job {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkMark(b *testing.B) {
	book := usage.New(noon)
	kept := book.Use("a", job, "jobs")
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			kept.Mark(noon)
		}
	})
	b.Run("looked up", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			book.Use("a", job, "jobs").Mark(noon)
		}
	})
}
