//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// ask asks one server one question.
func ask(addr netip.Addr, name string, rrtype uint16) (*dns.Msg, error) {
	return expectation{name: name, rrtype: rrtype}.ask(addr)
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
	client netip.Addr // who asks; zero: anybody
	// resolved is an answer of a resolver to one of its clients; else it is one of an authoritative server to a resolver.
	resolved bool
}

// asker asks an address as the client does.
func (x expectation) asker(addr netip.Addr) (*estate.Asker, error) {
	a, err := estate.NewAskerFrom(x.client, netip.AddrPortFrom(addr, estate.DNSPort))
	if err == nil {
		a.Recursion = x.resolved
	}
	return a, err
}

// ask asks once, whatever the answer.
func (x expectation) ask(addr netip.Addr) (*dns.Msg, error) {
	a, err := x.asker(addr)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.Ask(x.name, x.rrtype)
}

// hasAddress expects a name to have exactly this address.
func hasAddress(name, address string) expectation {
	return hasAddresses(name, address)
}

// hasAddresses expects a name to have exactly these addresses, in any order.
func hasAddresses(name string, addresses ...string) expectation {
	slices.Sort(addresses)
	return expectation{name: name, rrtype: dns.TypeA, is: func(m *dns.Msg) bool {
		return m.Authoritative && slices.Equal(datas(m.Answer, dns.TypeA), addresses)
	}}
}

// from is the expectation of a client at an address.
func (x expectation) from(client netip.Addr) expectation {
	x.client = client
	return x
}

// impatience is how long an answer is waited for where an address may have none yet: the question is asked again then.
const impatience = 100 * time.Millisecond

// awaitEverywhere waits until each of the addresses gives the expected answer. The times when they first did are in the
// order of addresses.
func (x expectation) awaitEverywhere(ctx context.Context, addresses []netip.Addr) ([]time.Time, error) {
	times, errs := make([]time.Time, len(addresses)), make([]error, len(addresses))
	var all sync.WaitGroup
	for i, addr := range addresses {
		all.Go(func() {
			var a *estate.Asker
			if a, errs[i] = x.asker(addr); errs[i] == nil {
				a.Timeout = impatience
				times[i], errs[i] = a.Await(ctx, x.name, x.rrtype, x.is)
				a.Close()
			}
		})
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
	a, err := x.asker(addr)
	if err != nil {
		return err
	}
	defer a.Close()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l.asked.Add(1)
		switch reply, err := a.Ask(x.name, x.rrtype); {
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
