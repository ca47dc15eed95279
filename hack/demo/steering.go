//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// Clients near each datacenter, by the networks that the story gives them.
var (
	clientA = netip.AddrFrom4([4]byte{127, 11, 0, 9})
	clientB = netip.AddrFrom4([4]byte{127, 21, 0, 9})
)

// The steered names of shop.yaml, and what they answer.
const (
	shop, ledger   = "shop.pay.corp", "ledger.pay.corp"
	firstA, firstB = "127.11.1.1", "127.21.1.1"
	otherA, otherB = "127.11.1.2", "127.21.1.2"
)

var (
	nearA    = hasAddresses(shop, firstA, otherA).from(clientA) // a client of dc-a is served there
	nearB    = hasAddresses(shop, firstB, otherB).from(clientB)
	movedToA = hasAddresses(shop, firstA, otherA).from(clientB) // a client of dc-b is served in dc-a
	movedToB = hasAddresses(shop, firstB, otherB).from(clientA)
)

// patience is how long the story waits for an answer to move. What it prints is what was measured.
const patience = 30 * time.Second

// moved waits until all the servers give all the expected answers, and says how long after a moment the last one did.
func (s *story) moved(since time.Time, servers []*estate.Server, all ...expectation) string {
	last := since
	for _, x := range all {
		if t := latest(s.everywhere(patience, x, addressesOf(servers))); t.After(last) {
			last = t
		}
	}
	return inWords(last.Sub(since))
}

// digs shows what the clients of both datacenters get, each from a server of its own one.
func (s *story) digs(name string) {
	for _, c := range []struct {
		client     netip.Addr
		datacenter string
	}{{clientA, "dc-a"}, {clientB, "dc-b"}} {
		s.run(fmt.Sprintf("dig -b %s +norec +noall +answer @%s %s", c.client, s.first(c.datacenter, "authoritative"), name), plain)
	}
}

// of is one datacenter's part of a group.
func (s *story) of(datacenter, group string) (servers []*estate.Server) {
	for _, srv := range s.Of(group) {
		if srv.Datacenter == datacenter {
			servers = append(servers, srv)
		}
	}
	return servers
}

// recordIs waits until the status of a DynamicRecord of the payments team is as expected.
func (s *story) recordIs(name, path, want string) {
	s.until(patience, fmt.Sprintf("%s of DynamicRecord %s is %q", path, name, want), func() bool {
		return s.quiet(fmt.Sprintf("kubectl get dynamicrecord %s -n payments -o jsonpath='{%s}'", name, path)) == want
	})
}

func (s *story) showRecords() {
	s.run("kubectl get dynamicrecords shop ledger -n payments -o wide", table("NAME", "HEALTHY", "SERVING", "TTL", "READY", "WORST-FAILOVER", "OVERRIDE"))
}

func steer(s *story) {
	s.startBackends()
	s.say("Two web servers in each datacenter, of which this is one:")
	s.command(s.commandLine(s.Others[0]))
	s.say("Clients and backends are at loopback addresses here, which probes never reach by default: both datacenters get networks and a list of their own, with the managers on it.")
	for _, dc := range []struct{ name, networks string }{
		{"dc-a", `"10.1.0.0/16", "2001:db8:a::/48", "127.11.0.0/16"`},
		{"dc-b", `"10.2.0.0/16", "2001:db8:b::/48", "127.21.0.0/16"`},
	} {
		s.run(fmt.Sprintf("kubectl patch datacenter %s --type=merge -p '{\"spec\": {\"networks\": [%s],\n\"probes\": {\"deniedNetworks\": [\"127.30.0.0/16\"]}}}'", dc.name, dc.networks))
	}
	began := time.Now()
	s.run("kubectl apply -f hack/demo/shop.yaml")
	s.run("kubectl wait --for=condition=Ready dynamicrecords shop ledger -n payments --timeout=30s")
	s.say("Each client gets the addresses of its own datacenter, at any server:")
	took := s.moved(began, s.Of("authoritative"), nearA, nearB)
	s.digs(shop)
	s.told("All %d authoritative servers answer both as near as can be, %s after the apply began.", len(s.Of("authoritative")), took)
	s.recordIs("shop", ".status.healthy", "4/4")
	s.recordIs("ledger", ".status.healthy", "2/2")
	s.showRecords()
}

func failOver(s *story) {
	servers := s.Of("authoritative")
	backend := s.backends("dc-a")[0]
	began := time.Now()
	s.kill(backend)
	took := s.moved(began, servers, hasAddress(shop, otherA).from(clientA), hasAddress(ledger, firstB))
	s.told("%s after the kill no server answers %s any more. Probes go out each second; two must fail.", took, backend.Addr)
	s.digs(shop)
	s.recordIs("shop", ".status.healthy", "3/4")
	s.recordIs("ledger", ".status.serving", "dc-b")
	s.showRecords()
	s.run("kubectl get dynamicrecord shop -n payments -o jsonpath='{range .status.targets[*]}{.address}: {.state} {.votes} {.lastFailure}\n{end}'")
	began = time.Now()
	s.must(s.Start(backend))
	s.told("It is started again, and answered again everywhere %s later.", s.moved(began, servers, nearA, nearB, hasAddress(ledger, firstA)))
}

func fallSilent(s *story) {
	survivors := s.of("dc-b", "authoritative")
	s.say("Nothing of dc-a answers any more, and nobody is told so: its servers and backends are stopped where they are.")
	began := time.Now()
	s.signal("dc-a", syscall.SIGSTOP)
	s.told("%s later the servers of dc-b answer clients of dc-a with their own addresses: votes lapse after 5 s.", s.moved(began, survivors, movedToB))
	s.run(fmt.Sprintf("dig -b %s +norec +noall +answer @%s %s", clientA, survivors[0].Addr, shop), plain)
	s.say("The ledger does not move: with two datacenters and no witness, dc-b can't tell a dead dc-a from a cut link, and onPeerLoss is Hold.")
	s.everywhere(time.Second, hasAddress(ledger, firstA), addressesOf(survivors))
	s.recordIs("shop", ".status.serving", "dc-b")
	s.recordIs("ledger", `.status.conditions[?(@.type=="SplitRisk")].status`, "True")
	s.showRecords()
	s.run(`kubectl get dynamicrecord ledger -n payments -o jsonpath='{.status.conditions[?(@.type=="SplitRisk")].message}'`, wrapped)
	began = time.Now()
	s.signal("dc-a", syscall.SIGCONT)
	s.told("dc-a is back; clients are near again at all servers %s later.", s.moved(began, s.Of("authoritative"), nearA, nearB, hasAddress(ledger, firstA)))
	s.run("kubectl wait --for=condition=Ready datacenters --all --timeout=30s")
	s.recordIs("shop", ".status.serving", "dc-a,dc-b")
}

// signal stops or continues all that runs in a datacenter.
func (s *story) signal(datacenter string, signal syscall.Signal) {
	var all []int
	for _, srv := range s.Servers {
		if srv.Datacenter == datacenter {
			all = append(all, srv.PID())
		}
	}
	for _, p := range s.backends(datacenter) {
		all = append(all, p.PID())
	}
	for _, p := range s.resolvers(datacenter) {
		all = append(all, p.PID(), s.engineOf(p))
	}
	line := "kill -STOP"
	if signal == syscall.SIGCONT {
		line = "kill -CONT"
	}
	for _, pid := range all {
		line += " " + strconv.Itoa(pid)
	}
	s.command(fmt.Sprintf("%s   # all of %s", line, datacenter))
	for _, pid := range all {
		s.must(syscall.Kill(pid, signal))
	}
}

func drain(s *story) {
	servers := s.Of("authoritative")
	began := time.Now()
	s.run("kubectl apply -f hack/demo/drain.yaml")
	s.told("%s after the apply began, all servers send clients of dc-b to dc-a.", s.moved(began, servers, nearA, movedToA))
	s.digs(shop)
	s.run("kubectl wait --for=condition=SafeToProceed trafficoverride/maintenance -n payments --timeout=30s")
	s.told("%s after the apply began, no resolver holds an address of dc-b any more: the maintenance may begin.", s.ago(began))
	s.run("kubectl get trafficoverride maintenance -n payments")
	s.run(`kubectl get trafficoverride maintenance -n payments -o jsonpath='{.status.conditions[?(@.type=="SafeToProceed")].message}'`, wrapped)
	s.recordIs("shop", ".status.override", "payments/maintenance")
	s.showRecords()
	began = time.Now()
	s.run("kubectl delete -f hack/demo/drain.yaml")
	s.told("All servers answer as before %s after the delete began.", s.moved(began, servers, nearA, nearB))
}

// breakGlass is the override that is made at a server, for a time that no step takes.
const breakGlass = "drain-dc-b"

func steerAlone(s *story) {
	servers := s.Of("authoritative")
	s.moved(time.Now(), servers, nearA, nearB) // also the one that lost its disk
	backend := s.backends("dc-b")[0]
	began := time.Now()
	s.kill(backend)
	s.told("%s after the kill no server answers %s any more.", s.moved(began, servers, hasAddress(shop, otherB).from(clientB)), backend.Addr)
	s.must(s.Start(backend))
	s.moved(began, servers, nearB)
	began = time.Now()
	s.signal("dc-b", syscall.SIGSTOP)
	s.told("%s after all of dc-b fell silent, the servers of dc-a answer its clients with their own addresses.", s.moved(began, s.of("dc-a", "authoritative"), movedToA))
	began = time.Now()
	s.signal("dc-b", syscall.SIGCONT)
	s.told("It is back, and clients are near again %s later.", s.moved(began, servers, nearA, nearB))

	s.say("Nobody can apply a TrafficOverride now. Whoever is on the machine of one server can do as much:")
	began = time.Now()
	s.run("dnsserver ctl --state-dir " + s.state(servers[0]) + " override drain --datacenter dc-b --record payments/shop --record payments/app --for 30m --reason CHG-4712")
	s.told("All servers follow %s after the command began: they tell each other.", s.moved(began, servers, movedToA))
	last := latest(s.everywhere(patience, resolved(firstA), addressesOfPrograms(s.resolvers("dc-a", "dc-b"))))
	s.told("Clients of resolvers are sent to dc-a for %s, too, %s after it.", app, inWords(last.Sub(began)))
	s.run("dnsserver ctl --state-dir " + s.state(servers[2]) + " override list")
}

// state is the folder of a server's state, as commands have it.
func (s *story) state(srv *estate.Server) string {
	return s.shorten(s.Path("state", srv.Datacenter, srv.Group, srv.Instance))
}

// steeredAgain tells what the control plane finds when it comes back.
func steeredAgain(s *story) {
	s.recordIs("shop", ".status.override", "local/"+breakGlass)
	s.recordIs("shop", ".status.healthy", "4/4")
	s.say("What was done without it shows:")
	s.showRecords()
	servers := s.Of("authoritative")
	s.everywhere(time.Second, movedToA, addressesOf(servers))
	began := time.Now()
	s.run("dnsserver ctl --state-dir " + s.state(servers[3]) + " override end " + breakGlass)
	s.told("Ended at another server, it is over at all %s after the command began.", s.moved(began, servers, nearA, nearB))
	s.recordIs("shop", ".status.override", "")
	s.check(strings.TrimSpace(s.quiet("kubectl get dynamicrecords shop ledger -n payments -o jsonpath='{.items[*].status.serving}'")) == "dc-a,dc-b dc-a", "both names are served as at the beginning")
}
