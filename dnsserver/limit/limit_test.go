package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	one   = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.2")
	far   = netip.MustParseAddr("198.51.100.1")
	six   = netip.MustParseAddr("2001:db8::1")
	six2  = netip.MustParseAddr("2001:db8::2")
)

const ms = int64(time.Millisecond)

// tally asks for n verdicts, one each interval from start on, and counts them.
func tally(n int, start, interval Time, judge func(now Time) Verdict) (passed, slipped, dropped int) {
	for i := range n {
		switch judge(start + int64(i)*interval) {
		case Pass:
			passed++
		case Slip:
			slipped++
		case Drop:
			dropped++
		}
	}
	return passed, slipped, dropped
}

func TestLimiter(t *testing.T) {
	type ask struct {
		from     netip.Addr
		class    uint8
		subject  uint64
		n        int
		start    int64 // ms
		interval int64 // µs
		want     string
	}
	for sentence, tc := range map[string]struct {
		rates Rates
		asks  []ask
	}{
		"without rates all passes":                      {Rates{}, []ask{{one, 1, 1, 10000, 0, 1, "10000 0 0"}}},
		"as many as the rate pass at once, and no more": {Rates{Responses: 10}, []ask{{one, 1, 1, 100, 0, 1, "10 0 90"}}},
		"what comes at the rate passes for ever":        {Rates{Responses: 10}, []ask{{one, 1, 1, 10000, 0, 100_100, "10000 0 0"}}},
		"other clients are not touched":                 {Rates{Responses: 10}, []ask{{one, 1, 1, 100, 0, 1, "10 0 90"}, {other, 1, 1, 10, 0, 1, "10 0 0"}}},
		"other names are not touched":                   {Rates{Responses: 10}, []ask{{one, 1, 1, 100, 0, 1, "10 0 90"}, {one, 1, 2, 10, 0, 1, "10 0 0"}}},
		"other classes are not touched":                 {Rates{Responses: 10}, []ask{{one, 1, 1, 100, 0, 1, "10 0 90"}, {one, 2, 1, 10, 0, 1, "10 0 0"}}},
		"a prefix is one client where it is said": {Rates{Responses: 10, IPv4Prefix: 24}, []ask{
			{one, 1, 1, 100, 0, 1, "10 0 90"}, {other, 1, 1, 10, 0, 1, "0 0 10"}, {far, 1, 1, 10, 0, 1, "10 0 0"},
		}},
		"so for IPv6":                            {Rates{Responses: 10, IPv6Prefix: 56}, []ask{{six, 1, 1, 100, 0, 1, "10 0 90"}, {six2, 1, 1, 10, 0, 1, "0 0 10"}}},
		"a prefix longer than 64":                {Rates{Responses: 10, IPv6Prefix: 120}, []ask{{six, 1, 1, 100, 0, 1, "10 0 90"}, {six2, 1, 1, 10, 0, 1, "0 0 10"}}},
		"IPv6 addresses are clients by default":  {Rates{Responses: 10}, []ask{{six, 1, 1, 100, 0, 1, "10 0 90"}, {six2, 1, 1, 10, 0, 1, "10 0 0"}}},
		"every one slips":                        {Rates{Responses: 10, Slip: 1}, []ask{{one, 1, 1, 100, 0, 1, "10 90 0"}}},
		"every other slips":                      {Rates{Responses: 10, Slip: 2}, []ask{{one, 1, 1, 100, 0, 1, "10 45 45"}}},
		"every tenth slips":                      {Rates{Responses: 10, Slip: 10}, []ask{{one, 1, 1, 110, 0, 1, "10 10 90"}}},
		"credit comes back with time":            {Rates{Responses: 10}, []ask{{one, 1, 1, 10, 0, 1, "10 0 0"}, {one, 1, 1, 10, 501, 1, "5 0 5"}}},
		"credit is at most that of a second":     {Rates{Responses: 10}, []ask{{one, 1, 1, 10, 0, 1, "10 0 0"}, {one, 1, 1, 20, 60_000, 1, "10 0 10"}}},
		"who goes on asking too much gets none":  {Rates{Responses: 10}, []ask{{one, 1, 1, 10, 0, 1, "10 0 0"}, {one, 1, 1, 1200, 0, 50_000, "0 0 1200"}}},
		"who stops is forgiven in 15 s":          {Rates{Responses: 10}, []ask{{one, 1, 1, 100000, 0, 1, "10 0 99990"}, {one, 1, 1, 1, 14_900, 1, "0 0 1"}, {one, 1, 1, 1, 15_500, 1, "1 0 0"}}},
		"an account that was unused for a month": {Rates{Responses: 10}, []ask{{one, 1, 1, 100, 0, 1, "10 0 90"}, {one, 1, 1, 10, 30 * 86400_000, 1, "10 0 0"}}},
		"the highest rate":                       {Rates{Responses: MaxRate}, []ask{{one, 1, 1, 2 * MaxRate, 0, 0, "97656 0 102344"}}},
		"the lowest rate":                        {Rates{Responses: 1}, []ask{{one, 1, 1, 3, 0, 1, "1 0 2"}, {far, 1, 1, 60, 0, 1_000_100, "60 0 0"}}},
	} {
		t.Run(sentence, func(t *testing.T) {
			l := NewAccounts(1024).Limiter(tc.rates)
			for _, a := range tc.asks {
				passed, slipped, dropped := tally(a.n, a.start*ms, a.interval*1000, func(now Time) Verdict {
					return l.Response(now, a.from, a.class, a.subject)
				})
				if got := fmt.Sprint(passed, slipped, dropped); got != a.want {
					t.Errorf("%d from %s: %s pass, slip and are dropped, wanted %s", a.n, a.from, got, a.want)
				}
			}
		})
	}
}

func TestQueriesAndRefusalsHaveAccountsOfTheirOwn(t *testing.T) {
	l := NewAccounts(1024).Limiter(Rates{Responses: 10, Queries: 20})
	for _, tc := range []struct {
		what  string
		judge func(Time) Verdict
		want  int
	}{
		{"responses", func(now Time) Verdict { return l.Response(now, one, 1, 1) }, 10},
		{"queries", func(now Time) Verdict { return l.Query(now, one) }, 20},
		{"refusals", func(now Time) Verdict { return l.Refusal(now, one) }, 10},
	} {
		if passed, _, _ := tally(100, 0, 1, tc.judge); passed != tc.want {
			t.Errorf("%d %s pass, wanted %d", passed, tc.what, tc.want)
		}
	}
	none := NewAccounts(1024).Limiter(Rates{Responses: 10})
	if passed, _, _ := tally(100, 0, 1, func(now Time) Verdict { return none.Query(now, one) }); passed != 100 {
		t.Errorf("%d queries pass where only replies are limited", passed)
	}
}

// TestRatesMayChange has who has asked too much stay so when other rates apply.
func TestRatesMayChange(t *testing.T) {
	accounts := NewAccounts(1024)
	before, after := accounts.Limiter(Rates{Responses: 10}), accounts.Limiter(Rates{Responses: 20})
	tally(100, 0, 1, func(now Time) Verdict { return before.Response(now, one, 1, 1) })
	if after.Response(100, one, 1, 1) != Drop {
		t.Error("the account starts anew")
	}
}

// TestSpoofedFlood has victims' addresses forged: 200,000 queries a second from as many addresses
// as there are, and 100 victims of whom each gets 500 replies a second. Neither the memory nor who
// asks in good faith is to suffer.
func TestSpoofedFlood(t *testing.T) {
	const rate = 20
	l := NewAccounts(1 << 16).Limiter(Rates{Responses: rate, Slip: 2})
	r := rand.New(rand.NewPCG(1, 2))
	const seconds = 30
	toVictims, slipped, honestDropped, honest := 0, 0, 0, 0
	for tick := range seconds * 1000 { // ms
		now := int64(tick) * ms
		for range 150 { // anybody
			a := netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
			l.Response(now, a, 1, 7)
		}
		for range 50 { // of 100 victims, all about one name
			switch l.Response(now, netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(100))}), 1, 7) {
			case Pass:
				toVictims++
			case Slip:
				slipped++
			}
		}
		if tick%100 == 0 { // ten times a second each of 100 asks for one of ten names
			for i := range 100 {
				honest++
				if l.Response(now, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1, uint64(tick/100%10)) != Pass {
					honestDropped++
				}
			}
		}
	}
	// BIND's way: after the first second the victims get next to nothing but what slips.
	if got := toVictims; got > 100*rate*2 {
		t.Errorf("victims get %d replies", got)
	}
	if want := seconds * 50 * 1000 / 2; slipped < want*8/10 || slipped > want {
		t.Errorf("%d replies slip, wanted half of those to victims, %d", slipped, want)
	}
	if honestDropped*10000 > honest {
		t.Errorf("%d of %d replies to others are dropped", honestDropped, honest)
	}
}

// TestFullAccountsForgetTheQuiet fills all places many times over.
func TestFullAccountsForgetTheQuiet(t *testing.T) {
	accounts := NewAccounts(64)
	l := accounts.Limiter(Rates{Responses: 10})
	tally(1000, 0, 1, func(now Time) Verdict { return l.Response(now, one, 1, 1) })
	dropped := 0
	for i := range uint64(10000) {
		l.Response(int64(i)*1000, one, 1, 100+i)
		if l.Response(int64(i)*1000, one, 1, 1) == Drop {
			dropped++
		}
	}
	if dropped < 9900 {
		t.Errorf("who asks most is forgotten: of 10000 %d are dropped", dropped)
	}
	if n := len(accounts.sets) * len(accounts.sets[0]); n != 64 {
		t.Errorf("%d places", n)
	}
}

// TestWorkersShareAccounts has many goroutines charge one account.
func TestWorkersShareAccounts(t *testing.T) {
	l := NewAccounts(1024).Limiter(Rates{Responses: 1000})
	var passed atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 10000 {
				if l.Response(0, one, 1, 1) == Pass {
					passed.Add(1)
				}
			}
		})
	}
	workers.Wait()
	// An account that is in use by several at once may let a few more pass.
	if n := passed.Load(); n < 990 || n > 4000 {
		t.Errorf("%d pass, wanted about 1000", n)
	}
}

func TestLimitsDoNotAllocate(t *testing.T) {
	l := NewAccounts(1024).Limiter(Rates{Responses: 10, Queries: 10, Slip: 2})
	var s Share
	s.Overloaded(0)
	if n := testing.AllocsPerRun(1000, func() {
		l.Response(0, one, 1, 1)
		l.Query(0, six)
		s.Admit(0, six, 1)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkResponse(b *testing.B) {
	for _, clients := range []int{1, 1000, 1000000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			l := NewAccounts(1 << 18).Limiter(Rates{Responses: 10, Queries: 100, Slip: 2})
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				l.Response(int64(i)*4000, netip.AddrFrom4([4]byte{10, byte(i % clients >> 16), byte(i % clients >> 8), byte(i % clients)}), 1, uint64(i%100))
			}
		})
	}
}
