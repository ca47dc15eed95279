package resolver

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

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

// TestAnAnswerOnItsWayIsForgottenToo: the engine has asked an authority when the change is heard, and gets the old answer later.
func TestAnAnswerOnItsWayIsForgottenToo(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newWorld(t)
			h := &hesitation{name: "t3600-app.slow.corp.", asked: make(chan struct{}), released: make(chan struct{})}
			w.startSpy("slow.corp.").hesitates(h)
			s := startPool(t, p, w.config())
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_, _ = ask(ctx, netip.Addr{}, s.at, question("t3600-app.slow.corp.", dns.TypeA, true)) // whoever asks gets the old answer
			}()
			<-h.asked
			change := changes.Change{Name: mustZoneName(t, "t3600-app.slow.corp."), Apex: mustZoneName(t, "slow.corp."), Before: []uint64{1}, After: 2}
			outcome := s.Flush(t.Context(), []changes.Change{change})
			close(h.released)
			t.Logf("the flush is %v", outcome)
			eventually(t, "the new answer is there", func() bool { return said(s.ask("t3600-app.slow.corp.")) == laterAddress })
		})
	}
}

// TestASilentZoneKeepsNobodyWaiting: of the many names of a zone of which nobody answers, few are asked for.
func TestASilentZoneKeepsNobodyWaiting(t *testing.T) {
	w := newWorld(t)
	s := startPool(t, engine.Unbound, w.config())
	s.ask("app.pay.corp.")
	s.ask("app.corp.")
	var asked sync.Map
	for dc := 1; dc <= 2; dc++ {
		a := w.datacenter(dc)[payCorp]
		a.stop()
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a.at))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 4096)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				var m dns.Msg
				if m.Unpack(b[:n]) == nil && strings.HasPrefix(m.Question[0].Name, "h") {
					asked.Store(m.Question[0].Name, true)
				}
			}
		}()
	}
	var all []changes.Change
	for i := range 2000 {
		all = append(all, changes.Change{Name: mustZoneName(t, fmt.Sprintf("h%d.pay.corp.", i)), Apex: mustZoneName(t, "pay.corp."), Before: []uint64{1}, After: 2})
	}
	s.flusher.hear(all, nil)
	w.move(1, "10.9.9.10", 1, 2)
	if got := s.Flush(t.Context(), []changes.Change{{Name: mustZoneName(t, "app.corp."), Apex: mustZoneName(t, "corp.")}}); !slices.Equal(got, []Outcome{Confirmed}) {
		t.Errorf("a name of another zone is %v", got)
	}
	eventually(t, "all names are looked at", func() bool { return s.Report().Flush.Outcomes[string(NoAuthority)] >= 1900 })
	n := 0
	asked.Range(func(any, any) bool { n++; return true })
	if n == 0 || n > 1000 {
		t.Errorf("%d of 2000 names were asked for", n)
	}
}

func TestSilenceEndsForOneWhoAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, apex, server := newAuthorities(), mustZoneName(t, "pay.corp."), netip.MustParseAddr("10.1.0.3")
		is := func(when string, want bool) {
			t.Helper()
			if _, got := a.isSilent(apex); got != want {
				t.Errorf("%s: silent is %t", when, got)
			}
		}
		is("before anybody has asked", false)
		is("while others find out", false)
		a.heard(apex, []netip.Addr{server}, false)
		is("when nobody has answered", true)
		time.Sleep(silenceLife)
		is("a while later, for the first", false)
		is("for others meanwhile", true)
		a.heard(apex, []netip.Addr{server}, false)
		is("when the first was not answered", true)
		time.Sleep(time.Millisecond)
		a.contact(server).answered = time.Now()
		is("when a server has said something, for the first", false)
		a.heard(apex, []netip.Addr{server}, true)
		is("when it has answered", false)
		is("for others too", false)
	})
}

func TestZonesAreForgottenWhoseChangesAreNotKnownAnyMore(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newWorld(t)
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			w.move(payCorp, "10.9.9.10", 1, 2)
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Fatalf("it is %q before", got)
			}
			eventually(t, "zones are forgotten", func() bool { return len(s.flusher.miss()) > 0 })
			eventually(t, "the new answer is there", func() bool { return said(s.ask("app.pay.corp.")) == "10.9.9.10" })
			if s.Report().Flush.Missed.IsZero() {
				t.Error("it is not reported")
			}
		})
	}
}

// TestMissesAreAnsweredWithoutADatacenter: all servers of one take questions without a word.
func TestMissesAreAnsweredWithoutADatacenter(t *testing.T) {
	w := newWorld(t)
	var members []*member
	for _, p := range products {
		s := startPool(t, p, w.configOf(p))
		for _, apex := range levels[1:] {
			s.ask("app." + apex)
		}
		members = append(members, s)
	}
	for _, a := range w.datacenter(2) {
		t.Cleanup(w.blackhole(a))
	}
	atOnce(members, func(s *member) {
		for n := range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			reply, err := ask(ctx, netip.Addr{}, s.at, question(fmt.Sprintf("n%d.%s", n, levels[1+n%3]), dns.TypeA, true))
			cancel()
			if err != nil || reply.Rcode != dns.RcodeNameError {
				t.Errorf("%s: name %d: %v, %v", s.o.Product, n, reply, err)
			}
		}
	})
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
