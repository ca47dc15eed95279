//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// The pool of the samples, and the name of office.yaml, which is in dc-b while its server there is up.
const (
	office = "office"
	app    = "app.pay.corp"
)

// resolverPort is where an agent tells how its engine does.
const resolverPort = 8056

// engines are the members of the pool, in the order of their addresses.
var engines = []string{"Unbound", "KnotResolver"}

// resolverAddresses are where clients of each datacenter ask. They are in its networks, as the clients are.
var resolverAddresses = map[string][]netip.Addr{
	"dc-a": {netip.AddrFrom4([4]byte{127, 11, 0, 53}), netip.AddrFrom4([4]byte{127, 11, 0, 54})},
	"dc-b": {netip.AddrFrom4([4]byte{127, 21, 0, 53}), netip.AddrFrom4([4]byte{127, 21, 0, 54})},
}

// resolved expects a client of a resolver to get exactly this address of the name.
func resolved(address string) expectation {
	return expectation{name: app, rrtype: dns.TypeA, resolved: true, is: func(m *dns.Msg) bool {
		return m.RecursionAvailable && slices.Equal(datas(m.Answer, dns.TypeA), []string{address})
	}}
}

// startResolvers starts an agent of each engine in each datacenter, those of dc-a first.
func (s *story) startResolvers() {
	for _, dc := range []string{"dc-a", "dc-b"} {
		for i, addr := range resolverAddresses[dc] {
			name := strings.Join([]string{"resolver", dc, strings.ToLower(engines[i])}, "-")
			p := &estate.Program{
				Name: name, Path: filepath.Join(s.Bin, "resolver-agent"), Addr: addr, Env: []string{"PATH=" + os.Getenv("PATH")},
				Args: []string{
					"--engine", engines[i], "--name", name, "--listen", addr.String(), "--http-listen", netip.AddrPortFrom(addr, resolverPort).String(),
					"--tls-dir", s.Path("certs", dc, "pool.dns-root."+office), "--dir", s.Path("state", dc, office, engines[i]),
				},
			}
			for _, m := range s.Managers {
				p.Args = append(p.Args, "--hub", netip.AddrPortFrom(m.Addr, estate.HubPort).String())
			}
			s.Others = append(s.Others, p)
			s.must(s.Start(p))
		}
	}
}

// resolvers are those of some datacenters, in this order.
func (s *story) resolvers(datacenters ...string) (all []*estate.Program) {
	for _, dc := range datacenters {
		for _, p := range s.Others {
			if strings.HasPrefix(p.Name, "resolver-"+dc+"-") {
				all = append(all, p)
			}
		}
	}
	return all
}

// engineOf returns the process of the engine that an agent runs.
func (s *story) engineOf(agent *estate.Program) int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", agent.PID()))
	s.must(err)
	for _, list := range lists {
		children, _ := os.ReadFile(list) // the thread may have ended
		for child := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(child)
			s.must(err)
			return pid
		}
	}
	s.fail("%s runs no engine", agent.Name)
	return 0
}

// addressesOfPrograms are where programs listen.
func addressesOfPrograms(programs []*estate.Program) []netip.Addr {
	all := make([]netip.Addr, len(programs))
	for i, p := range programs {
		all[i] = p.Addr
	}
	return all
}

// digApp shows what clients of both datacenters get from their resolvers, of different makers.
func (s *story) digApp() {
	for i, c := range []struct {
		client     netip.Addr
		datacenter string
	}{{clientA, "dc-a"}, {clientB, "dc-b"}} {
		s.run(fmt.Sprintf("dig -b %s +noall +answer @%s %s", c.client, resolverAddresses[c.datacenter][i], app), plain)
	}
}

func (s *story) showPool() {
	s.run("kubectl get resolverpools -A -o wide", table("NAME", "CLASS", "ENGINES", "READY-MEMBERS", "READY"))
}

func resolve(s *story) {
	s.say("The pool of the samples asks for Unbound and Knot Resolver in both datacenters. It is External: somebody starts an agent for each, here this and three like it, and each starts its engine.")
	s.run("sed -n '/^spec/,$p' config/samples/40-resolverpool.yaml")
	s.run("manager certs export --all --dir $RUN/certs", having("pool"), plain, wrapped)
	began := time.Now()
	s.startResolvers()
	s.command(s.commandLine(s.resolvers("dc-a")[0]))
	s.run("kubectl wait --for=condition=Ready resolverpool " + office + " -n dns-root --timeout=60s")
	s.told("All four have their configuration, and an engine that answers, %s after the first was started.", s.ago(began))
	s.say("A name with a TTL of a minute takes the place of that of the samples, without their drain of dc-b:")
	s.run("kubectl delete -f config/samples/50-trafficoverride.yaml")
	s.run("kubectl apply -f hack/demo/office.yaml")
	s.run("kubectl wait --for=condition=Ready dynamicrecord app -n payments --timeout=30s")
	s.everywhere(patience, hasAddress(app, otherB), addressesOf(s.Of("authoritative")))
	s.everywhere(patience, resolved(otherB), addressesOfPrograms(s.resolvers("dc-a", "dc-b")))
	s.say("Clients ask the resolvers, which walk down from the private root:")
	s.digApp()
	s.showPool()
}

// cached returns how long a resolver would go on answering from its cache, by the TTL that it tells clients.
func (s *story) cached(addr netip.Addr) time.Duration {
	reply, err := resolved(otherB).ask(addr)
	s.must(err)
	i := slices.IndexFunc(reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeA })
	s.check(i >= 0, "%s knows %s:\n%s", addr, app, reply)
	return time.Duration(reply.Answer[i].Header().Ttl) * time.Second
}

func flush(s *story) {
	all := addressesOfPrograms(s.resolvers("dc-a", "dc-b"))
	s.everywhere(patience, resolved(otherB), all)
	least := time.Minute
	for _, addr := range all {
		least = min(least, s.cached(addr))
	}
	s.say("All four resolvers have %s in their caches, for %.0f s more at least.", app, least.Seconds())
	backend := s.backends("dc-b")[1]
	var times []time.Time
	waiting := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(s.Context, patience)
		defer cancel()
		var err error
		times, err = resolved(firstA).awaitEverywhere(ctx, all)
		waiting <- err
	}()
	began := time.Now()
	s.kill(backend)
	decided := latest(s.everywhere(patience, hasAddress(app, firstA), addressesOf(s.Of("authoritative"))))
	s.must(<-waiting)
	s.facts += len(all)
	s.told("%s after the kill all %d authoritative servers say %s.", inWords(decided.Sub(began)), len(s.Of("authoritative")), firstA)
	for i, p := range s.resolvers("dc-a", "dc-b") {
		s.output([]string{fmt.Sprintf("%-12s %-28s %s", p.Addr, p.Name, relative(times[i], decided))})
	}
	s.check(latest(times).Sub(began) < least, "no resolver waited until its copy was too old")
	s.told("Their clients had it at once, and not %.0f s later: the servers told the agents, whose engines forgot this one name.", least.Seconds())
	s.digApp()
	s.must(s.Start(backend))
	began = time.Now()
	s.everywhere(patience, resolved(otherB), all)
	s.told("It is started again; all clients of resolvers are sent back to it %s later.", s.ago(began))
}

// relative says when something was, seen from a moment.
func relative(t, moment time.Time) string {
	if t.Before(moment) {
		return inWords(moment.Sub(t)) + " before the last of them"
	}
	return inWords(t.Sub(moment)) + " after the last of them"
}

func killResolver(s *story) {
	victim, other := s.resolvers("dc-a")[0], s.resolvers("dc-a")[1]
	x := resolved(otherB).from(clientA)
	asking := startLoad(s.Context, loadPeriod, map[netip.Addr]expectation{other.Addr: x})
	engine := s.engineOf(victim)
	began := time.Now()
	s.command(fmt.Sprintf("kill -9 %d   # the engine of %s", engine, victim.Name))
	s.must(syscall.Kill(engine, syscall.SIGKILL))
	s.everywhere(patience, x, []netip.Addr{victim.Addr})
	s.told("Its agent has started another: it answers again %s later.", s.ago(began))
	s.say("An agent takes its engine with it:")
	s.kill(victim)
	s.until(patience, "the pool misses a member", func() bool { return s.readyMembers() == "3/4" })
	s.showPool()
	s.must(s.Start(victim))
	began = time.Now()
	s.everywhere(patience, x, []netip.Addr{victim.Addr})
	s.told("Started again, it answers after %s, by the configuration on its disk.", s.ago(began))
	s.until(patience, "the pool is complete", func() bool { return s.readyMembers() == "4/4" })
	s.answeredAll(asking, "The resolver of the other maker was there all the time:")
}

func (s *story) readyMembers() string {
	return s.quiet("kubectl get resolverpool " + office + " -n dns-root -o jsonpath='{.status.readyMembers}'")
}
