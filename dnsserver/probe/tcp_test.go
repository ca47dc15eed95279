package probe

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestTCP(t *testing.T) {
	_, open := listen(t, "127.0.0.1")
	_, open6 := listen(t, "::1")
	for name, c := range map[string]struct {
		port    uint16
		target  string
		env     Env
		timeout time.Duration
		want    string
	}{
		"a port that accepts is up":                           {open, "127.0.0.1", anywhere(), late, "Up"},
		"so is one over IPv6":                                 {open6, "::1", anywhere(), late, "Up"},
		"an IPv4 address in its IPv6 form is the IPv4 one":    {open, "::ffff:127.0.0.1", anywhere(), late, "Up"},
		"a closed port is down at once":                       {closedPort(t), "127.0.0.1", anywhere(), late, "Down: connection refused"},
		"a port that drops packets is down after the timeout": {fullPort(t, "127.0.0.1"), "127.0.0.1", anywhere(), soon, "Down: no answer within 150ms"},
		"loopback is denied by default":                       {open, "127.0.0.1", Env{}, late, "Unknown: denied by the datacenter's probes.deniedNetworks"},
		"also in its IPv6 form":                               {open, "::ffff:127.0.0.1", Env{}, late, "Unknown: denied by the datacenter's probes.deniedNetworks"},
		"also in IPv6":                                        {open6, "::1", Env{}, late, "Unknown: denied by the datacenter's probes.deniedNetworks"},
		"also as the unspecified address":                     {open, "0.0.0.0", Env{}, late, "Unknown: denied by the datacenter's probes.deniedNetworks"},
	} {
		t.Run(name, func(t *testing.T) {
			is(t, ask(t, tcpOf(c.port, c.timeout), c.env, netip.MustParseAddr(c.target)), c.want)
		})
	}
}

func TestCanceledProbeEndsAtOnce(t *testing.T) {
	hole := uint32(blackhole(t))
	full := uint32(fullPort(t, "127.0.0.1"))
	for name, cfg := range map[string]*steeringpb.Probe{
		"while it connects":      {Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: full}}},
		"while it waits on HTTP": {Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Port: hole}}},
		"while it shakes hands":  {Type: &steeringpb.Probe_Tls{Tls: &steeringpb.Tls{Port: hole}}},
		"while it waits on gRPC": {Type: &steeringpb.Probe_Grpc{Grpc: &steeringpb.Grpc{Port: hole}}},
		"while it waits on DNS":  {Type: &steeringpb.Probe_Dns{Dns: &steeringpb.Dns{Port: hole, Name: "a", Type: "A", Tcp: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Timeout = 3_600_000
			p, err := New(cfg, anywhere())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			is(t, p.Probe(ctx, localhost), "Unknown: called off")
		})
	}
}

// TestStalledServerLearnsNothing holds that a server that was stopped does not blame the target.
func TestStalledServerLearnsNothing(t *testing.T) {
	p := &prober{timeout: time.Millisecond, kind: kindFunc(func(ctx context.Context, _ netip.Addr) Result {
		<-ctx.Done()
		time.Sleep(time.Millisecond/4 + tolerance)
		return down(Silent, "no answer")
	})}
	is(t, p.Probe(t.Context(), localhost), "Unknown: this server stood still while it waited")
}

func TestPanicIsUnknown(t *testing.T) {
	var cause any
	p := &prober{timeout: late, kind: kindFunc(func(context.Context, netip.Addr) Result { panic("x") }), env: Env{Panicked: func(c any) { cause = c }}}
	is(t, p.Probe(t.Context(), localhost), "Unknown: this server failed to judge the answer")
	if cause != "x" {
		t.Errorf("told of %v", cause)
	}
}

type kindFunc func(context.Context, netip.Addr) Result

func (f kindFunc) ask(ctx context.Context, target netip.Addr) Result { return f(ctx, target) }

func TestProbesThatMakeNoSense(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  *steeringpb.Probe
		want string
	}{
		"no timeout":         {&steeringpb.Probe{Source: "a/b", Type: &steeringpb.Probe_Icmp{}}, "probe a/b: no timeout"},
		"no type":            {&steeringpb.Probe{Source: "a/b", Timeout: 1}, "probe a/b: of no type that this server knows"},
		"calculated":         {&steeringpb.Probe{Timeout: 1, Type: &steeringpb.Probe_Calculated{}}, "probe : a calculated probe asks nobody"},
		"port 0":             {tcpOf(0, late), "probe payments/test: a port is 1 to 65535"},
		"a path of two":      {httpOf(&steeringpb.Http{Port: 80, Path: "/a b"}, late), "probe payments/test: a path begins with / and has no spaces"},
		"a second header":    {httpOf(&steeringpb.Http{Port: 80, Host: "a\r\nX: y"}, late), "probe payments/test: a host is a name, without spaces"},
		"a method of two":    {httpOf(&steeringpb.Http{Port: 80, Method: "GET /"}, late), "probe payments/test: no such method"},
		"a bad expression":   {httpOf(&steeringpb.Http{Port: 80, BodyMatches: "("}, late), "probe payments/test: expression for the body: error parsing regexp: missing closing ): `(`"},
		"a bad authority":    {httpOf(&steeringpb.Http{Port: 80, CertificateAuthority: "x"}, late), "probe payments/test: the certificate authority has no certificate in PEM form"},
		"a type of no DNS":   {dnsOf(&steeringpb.Dns{Port: 53, Type: "X"}, late), `probe payments/test: no such type of records: "X"`},
		"an rcode of no DNS": {dnsOf(&steeringpb.Dns{Port: 53, Type: "A", Name: "a", Rcode: "X"}, late), `probe payments/test: no such rcode: "X"`},
		"an answer of another type": {dnsOf(&steeringpb.Dns{Port: 53, Type: "A", Name: "a", Answers: []string{"::1"}}, late),
			`probe payments/test: "::1" is no data of a record of type A`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(c.cfg, anywhere()); err == nil || err.Error() != c.want {
				t.Errorf("%v, wanted %s", err, c.want)
			}
		})
	}
}
