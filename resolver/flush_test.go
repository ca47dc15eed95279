package resolver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// app is the change of app in pay.corp, with the alias that leads there.
func app(t testing.TB) []changes.Change {
	t.Helper()
	return []changes.Change{{Name: mustZoneName(t, "app.pay.corp."), Aliases: []zone.Name{mustZoneName(t, "www.pay.corp.")}}}
}

// payCorp is the level of pay.corp.
const payCorp = 2

func TestAChangedAnswerIsThereAtOnce(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			for _, address := range []string{"10.9.9.10", "10.9.9.9"} {
				for _, name := range []string{"app.pay.corp.", "www.pay.corp."} {
					s.ask(name)
				}
				w.move(payCorp, address, 1, 2)
				if got := s.Flush(t.Context(), app(t)); !slices.Equal(got, []Outcome{Confirmed}) {
					t.Errorf("the flush is %v", got)
				}
				for _, name := range []string{"app.pay.corp.", "www.pay.corp."} {
					if got := s.ask(name); !strings.HasSuffix(got.String(), "A\t"+address+"\n") {
						t.Errorf("%s is %v, not %s", name, got.Answer, address)
					}
				}
			}
		})
	}
}

func TestNothingIsFlushedWhileNoAuthorityAnswers(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newWorld(t)
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			for dc := 1; dc <= 2; dc++ {
				w.datacenter(dc)[payCorp].stop()
			}
			if got := s.Flush(t.Context(), app(t)); !slices.Equal(got, []Outcome{NoAuthority}) {
				t.Errorf("the flush is %v", got)
			}
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("the copy is lost: %q", got)
			}
			// When they are back with another answer it is taken without being told again.
			for dc := 1; dc <= 2; dc++ {
				a := w.datacenter(dc)[payCorp]
				w.write(a, w.text(payCorp, "10.9.9.10"))
				w.start(a)
			}
			eventually(t, "the new answer is there", func() bool { return said(s.ask("app.pay.corp.")) == "10.9.9.10" })
		})
	}
}

func TestAWholeDatacenterIsLost(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newWorld(t)
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			var lift []func()
			for _, a := range w.datacenter(2) {
				lift = append(lift, w.blackhole(a))
			}
			w.move(payCorp, "10.9.9.10", 1)
			// An engine that waits for a server that is gone may not be done in time.
			if got := s.Flush(t.Context(), app(t)); !slices.Equal(got, []Outcome{Confirmed}) && !slices.Equal(got, []Outcome{Unconfirmed}) {
				t.Errorf("the flush is %v", got)
			}
			eventually(t, "the new answer is there", func() bool { return said(s.ask("app.pay.corp.")) == "10.9.9.10" })
			for i, a := range w.datacenter(2) {
				lift[i]()
				if i == payCorp {
					w.write(a, w.text(payCorp, "10.9.9.10"))
				}
				w.start(a)
			}
			eventually(t, "the server that is back has been looked at", func() bool {
				return s.Report().Flush.Waiting == 0
			})
		})
	}
}

func TestAFlushWaitsUntilAuthoritiesAgree(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newWorld(t)
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			w.move(payCorp, "10.9.9.10", 1)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if got := s.Flush(ctx, app(t)); !slices.Equal(got, []Outcome{Unconfirmed}) {
				t.Errorf("the flush is %v", got)
			}
			w.move(payCorp, "10.9.9.10", 2)
			eventually(t, "it is settled", func() bool {
				return s.Report().Flush.Waiting == 0
			})
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.10" {
				t.Errorf("it is %q", got)
			}
		})
	}
}

func TestFlushesAreAskedForOverHTTP(t *testing.T) {
	w := newWorld(t)
	s := startPool(t, engine.Unbound, w.config())
	for name, tt := range map[string]struct {
		body, want string
		status     int
	}{
		"names are flushed":              {`{"changes": [{"name": "app.pay.corp", "aliases": ["www.pay.corp"]}, {"name": "app.corp."}]}`, `{"outcomes":["Confirmed","Confirmed"]}`, http.StatusOK},
		"a name has labels":              {`{"changes": [{"name": "a..b"}]}`, `name "a..b" has an empty label`, http.StatusBadRequest},
		"there is something to do":       {`{"changes": []}`, "0 changes: a request has 1 to 10000", http.StatusBadRequest},
		"what is not known is told":      {`{"names": []}`, `json: unknown field "names"`, http.StatusBadRequest},
		"one request has so many names":  {`{"changes": [` + strings.Repeat(`{"name": "a"},`, 10000) + `{"name": "a"}]}`, "10001 changes: a request has 1 to 10000", http.StatusBadRequest},
		"a name that is not there is so": {`{"changes": [{"name": "nobody.pay.corp"}]}`, `{"outcomes":["Confirmed"]}`, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			got := httptest.NewRecorder()
			s.FlushHandler().ServeHTTP(got, httptest.NewRequest(http.MethodPost, "/v1/flush", strings.NewReader(tt.body)))
			if got.Code != tt.status {
				t.Errorf("status %d", got.Code)
			}
			if diff := cmp.Diff(tt.want, strings.TrimSpace(got.Body.String())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzReadFlush: whatever is sent is refused or read as names that say the same when written again.
func FuzzReadFlush(f *testing.F) {
	f.Add(`{"changes": [{"name": "app.pay.corp", "aliases": ["www.pay.corp"]}]}`)
	f.Add(`{"changes": [{"name": "a\\039.corp."}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		all, err := readFlush(strings.NewReader(body))
		if err != nil {
			return
		}
		var request FlushRequest
		for _, c := range all {
			one := FlushChange{Name: c.Name.String()}
			for _, a := range c.Aliases {
				one.Aliases = append(one.Aliases, a.String())
			}
			request.Changes = append(request.Changes, one)
		}
		text, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readFlush(strings.NewReader(string(text)))
		if err != nil {
			t.Fatalf("what was read is refused: %v", err)
		}
		if diff := cmp.Diff(all, again); diff != "" {
			t.Error(diff)
		}
	})
}
