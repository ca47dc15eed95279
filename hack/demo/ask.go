//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// asker asks one server by UDP. It is for one goroutine.
type asker struct {
	conn *dns.Conn
}

// udpSize is the largest answer that is asked for by UDP, in octets.
const udpSize = 1232

// answerTimeout is how long a server on this machine may take.
const answerTimeout = time.Second

func newAsker(addr netip.Addr) (*asker, error) {
	conn, err := net.Dial("udp", netip.AddrPortFrom(addr, dnsPort).String())
	if err != nil {
		return nil, err
	}
	return &asker{&dns.Conn{Conn: conn, UDPSize: udpSize}}, nil
}

func (a *asker) close() { a.conn.Close() }

// ask returns the server's answer, of whatever code.
func (a *asker) ask(name string, rrtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype)
	query.RecursionDesired = false
	query.SetEdns0(udpSize, false)
	if err := a.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if err := a.conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		reply, err := a.conn.ReadMsg()
		if err != nil || reply.Id == query.Id { // others are late answers to earlier questions
			return reply, err
		}
	}
}

// ask asks one server one question.
func ask(addr netip.Addr, name string, rrtype uint16) (*dns.Msg, error) {
	a, err := newAsker(addr)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return a.ask(name, rrtype)
}

// datas returns what the records of one type say, sorted.
func datas(records []dns.RR, rrtype uint16) []string {
	var all []string
	for _, rr := range records {
		if rr.Header().Rrtype == rrtype {
			all = append(all, rr.String()[len(rr.Header().String()):])
		}
	}
	slices.Sort(all)
	return all
}

// expectation is an answer that is waited for.
type expectation struct {
	name   string
	rrtype uint16
	is     func(*dns.Msg) bool
}

// hasAddress expects a name to have exactly this address.
func hasAddress(name, address string) expectation {
	return expectation{name, dns.TypeA, func(m *dns.Msg) bool {
		return m.Authoritative && slices.Equal(datas(m.Answer, dns.TypeA), []string{address})
	}}
}

// awaitAt asks an address every millisecond until it gives the expected answer, and returns when it came.
func (x expectation) awaitAt(ctx context.Context, addr netip.Addr) (time.Time, error) {
	a, err := newAsker(addr)
	if err != nil {
		return time.Time{}, err
	}
	defer a.close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if reply, err := a.ask(x.name, x.rrtype); err == nil && x.is(reply) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s does not give the expected answer for %s %s: %w", addr, x.name, dns.TypeToString[x.rrtype], context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// awaitEverywhere is awaitAt for many addresses at once. The times are in the order of addresses.
func (x expectation) awaitEverywhere(ctx context.Context, addresses []netip.Addr) ([]time.Time, error) {
	times, errs := make([]time.Time, len(addresses)), make([]error, len(addresses))
	var all sync.WaitGroup
	for i, addr := range addresses {
		all.Go(func() { times[i], errs[i] = x.awaitAt(ctx, addr) })
	}
	all.Wait()
	return times, errors.Join(errs...)
}

// load asks servers all the time, until stop.
type load struct {
	cancel          context.CancelFunc
	all             sync.WaitGroup
	asked, answered atomic.Int64

	mu       sync.Mutex
	complain error // the first
}

// startLoad asks every address once in a period, each the expected question.
func startLoad(ctx context.Context, period time.Duration, questions map[netip.Addr]expectation) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	for addr, x := range questions {
		l.all.Go(func() { l.complains(l.run(ctx, period, addr, x)) })
	}
	return l
}

func (l *load) complains(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.complain == nil {
		l.complain = err
	}
}

func (l *load) run(ctx context.Context, period time.Duration, addr netip.Addr, x expectation) error {
	a, err := newAsker(addr)
	if err != nil {
		return err
	}
	defer a.close()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l.asked.Add(1)
		switch reply, err := a.ask(x.name, x.rrtype); {
		case err != nil:
			l.complains(fmt.Errorf("%s: %w", addr, err))
		case !x.is(reply):
			l.complains(fmt.Errorf("%s gave another answer than before:\n%s", addr, reply))
		default:
			l.answered.Add(1)
		}
	}
}

// stop ends the questions. It returns how many there were, how many got the expected answer, and what was wrong with
// the first of the others.
func (l *load) stop() (asked, answered int64, err error) {
	l.cancel()
	l.all.Wait()
	return l.asked.Load(), l.answered.Load(), l.complain
}
