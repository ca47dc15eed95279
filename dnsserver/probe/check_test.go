package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

func TestMaker(t *testing.T) {
	_, open := listen(t, "127.0.0.1")
	m := NewMaker(Env{Denied: anywhere().Denied, Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "app.pay.bank.":
			return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("192.0.2.1")}, nil
		case "none.pay.bank.":
			return nil, &net.DNSError{IsNotFound: true}
		case "empty.pay.bank.":
			return nil, nil
		case "slow.pay.bank.":
			<-ctx.Done()
			return nil, ctx.Err()
		default:
			return nil, errNone
		}
	}})
	for target, want := range map[string]string{
		"127.0.0.1":         "Up",
		"::ffff:127.0.0.1":  "Up",
		"app.pay.bank.":     "Up",
		"none.pay.bank.":    "Down: the target's name has no address",
		"empty.pay.bank.":   "Down: the target's name has no address",
		"slow.pay.bank.":    "Unknown: the target's name could not be looked up",
		"refused.pay.bank.": "Unknown: the target's name could not be looked up",
	} {
		t.Run(target, func(t *testing.T) {
			cfg := tcpOf(open, late)
			if target == "slow.pay.bank." {
				cfg.Timeout = uint64(soon.Milliseconds())
			}
			c := m.Check(health.Check{ID: health.CheckID{7}, Probe: cfg, Address: target})
			if c.ID != (health.CheckID{7}) || c.Interval != 30*time.Second || c.IdleInterval != 0 {
				t.Errorf("%+v", c)
			}
			is(t, c.Prober.Probe(t.Context(), c.Address), want)
		})
	}

	t.Run("without a resolver names say nothing", func(t *testing.T) {
		c := NewMaker(anywhere()).Check(health.Check{Probe: tcpOf(open, late), Address: "app.pay.bank."})
		is(t, c.Prober.Probe(t.Context(), c.Address), "Unknown: this server can't look up names")
	})
	t.Run("a name may lead nowhere that is denied", func(t *testing.T) {
		m := NewMaker(Env{Lookup: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{localhost}, nil }})
		c := m.Check(health.Check{Probe: tcpOf(open, late), Address: "app.pay.bank."})
		is(t, c.Prober.Probe(t.Context(), c.Address), "Unknown: denied by the datacenter's probes.deniedNetworks")
	})
	t.Run("a probe that makes no sense says nothing", func(t *testing.T) {
		c := m.Check(health.Check{Probe: probeOf(late), Address: "127.0.0.1"})
		is(t, c.Prober.Probe(t.Context(), c.Address), "Unknown: this server can't run the probe payments/test: of no type that this server knows")
	})
}

func TestEqualProbesShareAProber(t *testing.T) {
	m := NewMaker(anywhere())
	of := func(port uint16, source, address string) Check {
		p := tcpOf(port, late)
		p.Source = source
		return m.Check(health.Check{Probe: p, Address: address})
	}
	a, b, c := of(80, "payments/a", "10.0.0.1"), of(80, "cards/b", "10.0.0.2"), of(81, "payments/a", "10.0.0.1")
	if a.Prober != b.Prober || a.Prober == c.Prober {
		t.Error("equal probes do not share a prober, or others do")
	}
	if n := of(80, "", "app.pay.bank.").Prober.(*byName); n.prober != a.Prober {
		t.Error("nor does a name")
	}
	if n := len(m.made); n != 2 {
		t.Errorf("%d probers", n)
	}
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	runtime.KeepAlive(c)
	for deadline := time.Now().Add(late); ; runtime.GC() {
		m.mu.Lock()
		n := len(m.made)
		m.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d probers are held that nobody uses", n)
		}
	}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want health.Result
	}{
		{up(), health.Result{Outcome: health.Up}},
		{unknown(Denied, "a"), health.Result{Outcome: health.Unknown, Failure: "a"}},
		{Result{Outcome: Degraded, Code: Expiring, Reason: "a"}, health.Result{Outcome: health.Degraded, Failure: "a"}},
		{down(Refused, "a"), health.Result{Outcome: health.Down, Failure: "a"}},
		{down(Timeout, "a"), health.Result{Outcome: health.Down, Failure: "a"}},
		{down(Silent, "a"), health.Result{Outcome: health.Down, Failure: "a", Silent: true}},
		{down(Unreachable, "a"), health.Result{Outcome: health.Down, Failure: "a", Silent: true}},
	} {
		c.r.Latency, c.r.Smoothed = 3, 4
		c.want.Took, c.want.Latency = 3, 4
		if diff := cmp.Diff(c.want, c.r.Health()); diff != "" {
			t.Errorf("%s:\n%s", c.r, diff)
		}
	}
}

var errNone = errors.New("none")
