package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Outcome is what one probe says of its target.
type Outcome uint8

const (
	// Unknown is that nothing was learned of the target, for a reason on this side.
	Unknown Outcome = iota
	// Up is that the target answered as it should.
	Up
	// Degraded is that it answered as it should, and won't for much longer.
	Degraded
	// Down is that it did not.
	Down
)

func (o Outcome) String() string {
	switch o {
	case Up:
		return "Up"
	case Degraded:
		return "Degraded"
	case Down:
		return "Down"
	default:
		return "Unknown"
	}
}

// Code is why an Outcome is not Up, for programs. More may be added.
type Code string

// Codes with the Outcome Down, but for Expiring, which is Degraded.
const (
	Silent      Code = "Silent"      // nothing came at all, in time
	Timeout     Code = "Timeout"     // something came, as a connection, and not all that was wanted, in time
	Refused     Code = "Refused"     // the port is closed
	Unreachable Code = "Unreachable" // the network says that there is no way to the target
	Closed      Code = "Closed"      // the target hung up
	Protocol    Code = "Protocol"    // what came is not of the protocol
	Handshake   Code = "Handshake"   // TLS failed, other than by the certificate
	Certificate Code = "Certificate" // the certificate is not valid
	Expiring    Code = "Expiring"    // the certificate is valid, and ends soon
	Status      Code = "Status"      // another HTTP status, gRPC status or DNS rcode than wanted
	Content     Code = "Content"     // body or answer lack what is wanted
	NotServing  Code = "NotServing"  // the target says itself that it is not up
	NoAddress   Code = "NoAddress"   // the target's name has no address; Unknown if that could not be found out
)

// Codes with the Outcome Unknown.
const (
	Denied       Code = "Denied"       // probes must not reach the address
	NotPermitted Code = "NotPermitted" // the system of this server does not permit the probe
	Exhausted    Code = "Exhausted"    // this server lacks file descriptors, ports or memory
	NoSecret     Code = "NoSecret"     // the client certificate is not here
	Stalled      Code = "Stalled"      // this server stood still while it waited for the answer
	Canceled     Code = "Canceled"     // the probe was called off
	Internal     Code = "Internal"     // this server made a mistake
)

// Result is what one probe saw.
type Result struct {
	Outcome Outcome
	// Code is empty if and only if the Outcome is Up, as is Reason: Code in words for people, such as "HTTP 503, wanted
	// 200-299". Words have nothing of what the target sent but numbers and names that the protocol's standards list.
	Code   Code
	Reason string
	// Latency is from the begin of the probe to its result, whatever that is.
	Latency time.Duration
	// Smoothed is the latency of this and the target's last probes that were answered (RTT), with Results of a
	// Scheduler. 0: none was.
	Smoothed time.Duration
}

// Health returns the result as package health takes it.
func (r Result) Health() health.Result {
	return health.Result{
		Outcome: [...]health.State{Unknown: health.Unknown, Up: health.Up, Degraded: health.Degraded, Down: health.Down}[r.Outcome],
		Silent:  r.Outcome == Down && (r.Code == Silent || r.Code == Unreachable),
		Failure: r.Reason, Took: r.Latency, Latency: r.Smoothed,
	}
}

func (r Result) String() string {
	if r.Reason == "" {
		return r.Outcome.String()
	}
	return r.Outcome.String() + ": " + r.Reason
}

// Prober asks targets as one HealthProbe says.
type Prober interface {
	// Probe asks one target and returns what came of it: after the probe's timeout at the latest, at once when ctx
	// ends (Canceled). It is safe for concurrent use.
	Probe(ctx context.Context, target netip.Addr) Result
}

// Env is what probers need of the server that they run in. Its functions may be called concurrently, and for each probe:
// what they return may change at any time.
type Env struct {
	// Denied reports whether probes must not reach the address, an IPv4 address never in its IPv6 form. It is asked
	// for every connection, about the very address that is connected to. Nil stands for DenyByDefault().
	Denied func(netip.Addr) bool
	// Certificate returns a client certificate by the name of its Secret, namespace/name. Nil: there are none.
	Certificate func(name string) (*tls.Certificate, error)
	// Lookup returns the addresses of a name, as net.Resolver.LookupNetIP does with the network "ip". Nil: names can't be
	// looked up.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Panicked is told of mistakes of this package, from within the deferred function. May be nil.
	Panicked func(cause any)
}

// kind is one kind of probe. Down, Degraded and Unknown results are complete but for the latency. What it does ends with
// ctx, which has the probe's deadline.
type kind interface {
	ask(ctx context.Context, target netip.Addr) Result
}

// New returns the prober of a HealthProbe. cfg must not change afterwards. An error says what of cfg makes no sense, and
// that of a Calculated probe that there is nothing to ask.
func New(cfg *steeringpb.Probe, env Env) (Prober, error) {
	p, err := newProber(cfg, env)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func newProber(cfg *steeringpb.Probe, env Env) (*prober, error) {
	if env.Denied == nil {
		env.Denied = DenyByDefault().Denies
	}
	timeout := milliseconds(cfg.GetTimeout())
	if timeout <= 0 {
		return nil, fmt.Errorf("probe %s: no timeout", cfg.GetSource())
	}
	how, err := newKind(cfg, env)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", cfg.GetSource(), err)
	}
	return &prober{kind: how, timeout: timeout, env: env}, nil
}

func newKind(cfg *steeringpb.Probe, env Env) (kind, error) {
	switch t := cfg.GetType().(type) {
	case *steeringpb.Probe_Tcp:
		return newTCP(t.Tcp, env)
	case *steeringpb.Probe_Http:
		return newHTTP(t.Http, env)
	case *steeringpb.Probe_Tls:
		return newTLS(t.Tls, env)
	case *steeringpb.Probe_Grpc:
		return newGRPC(t.Grpc, env)
	case *steeringpb.Probe_Dns:
		return newDNS(t.Dns, env)
	case *steeringpb.Probe_Icmp:
		return newICMP(env), nil
	case *steeringpb.Probe_Calculated:
		return nil, errors.New("a calculated probe asks nobody")
	default:
		return nil, errors.New("of no type that this server knows")
	}
}

// prober is a kind with what is common to all: timeout, latency, and that nothing escapes.
type prober struct {
	kind    kind
	timeout time.Duration
	env     Env
}

func (p *prober) Probe(ctx context.Context, target netip.Addr) Result {
	return p.within(ctx, func(ctx context.Context) Result { return p.kind.ask(ctx, target.Unmap()) })
}

// within has f learn of the target in the probe's time.
func (p *prober) within(ctx context.Context, f func(context.Context) Result) (result Result) {
	began := time.Now()
	defer func() {
		if cause := recover(); cause != nil {
			result = unknown(Internal, "this server failed to judge the answer")
			if p.env.Panicked != nil {
				p.env.Panicked(cause)
			}
		}
		result.Latency = time.Since(began)
	}()
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	result = f(limited)
	switch {
	case ctx.Err() != nil:
		return unknown(Canceled, "called off")
	case result.Code != Silent && result.Code != Timeout:
		return result
	case time.Since(began) > p.timeout+p.timeout/4+tolerance:
		return unknown(Stalled, "this server stood still while it waited")
	}
	result.Reason += " within " + p.timeout.String()
	return result
}

// tolerance is how late a busy server may notice that time is up. One that is later was stopped, or starved: the answer
// may have come meanwhile.
const tolerance = 250 * time.Millisecond

func up() Result                           { return Result{Outcome: Up} }
func down(c Code, reason string) Result    { return Result{Outcome: Down, Code: c, Reason: reason} }
func unknown(c Code, reason string) Result { return Result{Outcome: Unknown, Code: c, Reason: reason} }

func milliseconds(n uint64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }
