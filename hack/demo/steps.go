//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// step is one part of the story.
type step struct {
	title string
	tell  func(*story)
	stays bool // told too when the estate is to stay
}

var steps = []step{
	{"A Kubernetes API, two managers and the DNS servers of two datacenters start", startEverything, true},
	{"The hierarchy is applied: a root, a private top level, and zones of two teams", applyZones, true},
	{"Names are answered in both datacenters", answerNames, false},
	{"The walk from the private root down to a leaf", walk, false},
	{"The internet's names hang below the same root, its root servers do not", internet, false},
	{"A change reaches every server", change, false},
	{"A mistake is named with its line, and stops nobody else", mistake, false},
	{"A tenant that claims the names of others gets nowhere", claims, false},
	{"Records that vanish en masse are held back until somebody approves", vanish, false},
	{"A name is answered near its clients", steer, true},
	{"A backend is killed", failOver, false},
	{"A whole datacenter falls silent", fallSilent, false},
	{"A datacenter is drained, until it is safe to work on it", drain, false},
	{"Resolvers of two makers serve the clients of both datacenters", resolve, true},
	{"A failover reaches clients of resolvers at once, though the TTL is a minute", flush, false},
	{"A resolver's engine is killed, then an agent", killResolver, false},
	{"The leading manager is killed", killLeader, false},
	{"Both managers and the API server are gone", killAll, false},
	{"Steering goes on without them", steerAlone, false},
	{"Everything comes back", comeBack, false},
}

const (
	apexNamespace = "dns-root"      // may have zones without a parent
	leaseDuration = 4 * time.Second // by default 15 s: the story is to be short
)

func startEverything(s *story) {
	began := time.Now()
	s.must(s.StartControlPlane())
	s.say("etcd and kube-apiserver %s are ready after %s. $RUN is the folder of this run, %s. The kinds, and the operator's namespace:", controlplane.Version, s.ago(began), s.Dir)
	s.run("kubectl apply --server-side -f config/crd/bases", first(2))
	s.run("kubectl create namespace " + estate.Namespace)
	s.must(s.Authorize())

	began = time.Now()
	s.say("Two managers, of which one will lead: this one, and the same on %s. Short leases make a short story.", s.Managers[1].Addr)
	s.command(s.commandLine(s.Managers[0]))
	for _, m := range s.Managers {
		s.must(s.Start(m))
	}
	leader := s.awaitLeader()
	s.told("%s leads after %s.", leader.Name, s.ago(began))

	s.run("kubectl apply -f config/samples/00-namespaces.yaml -f config/samples/10-datacenters.yaml", having("datacenter"))
	s.run("manager certs export --all --dir $RUN/certs", plain, wrapped, first(2))
	began = time.Now()
	s.say("%d dnsservers, one for each address in the Datacenters: this one, and %d like it.", len(s.Servers), len(s.Servers)-1)
	s.command(s.commandLine(&s.Servers[0].Program))
	for _, srv := range s.Servers {
		s.must(s.Start(&srv.Program))
	}
	s.run("kubectl wait --for=condition=Ready datacenters --all --timeout=30s")
	s.told("All are connected after %s.", s.ago(began))
}

// commandLine is how a person would type a program's start.
func (s *story) commandLine(p *estate.Program) string {
	return s.shorten(strings.Join(append([]string{filepath.Base(p.Path)}, p.Args...), " ")) + " &"
}

func (s *story) awaitLeader() (leader *estate.Program) {
	s.until(30*time.Second, "a manager leads", func() bool {
		leader = s.Leader()
		return leader != nil
	})
	return leader
}

func applyZones(s *story) {
	s.say("The root zone of the internet, 17,186 records without SOA, is a ConfigMap: server-side, because what a plain apply keeps in an annotation may have 256 KiB at most.")
	s.quiet("gzip -dc dnsserver/zone/testdata/root.zone.gz >$RUN/root.zone")
	s.run("kubectl create configmap iana-root -n dns-root --from-file=$RUN/root.zone --dry-run=client -o yaml | kubectl apply --server-side -f -")
	began := time.Now()
	s.run("kubectl apply -f config/samples", having("dnszone"))
	s.run("kubectl wait --for=condition=Ready dnszones --all -A --timeout=60s")
	s.told("Every zone is served, and on disk, at all its servers %s after the apply began.", s.ago(began))
	s.until(20*time.Second, "all but the root are delegated, and both datacenters are ready", func() bool {
		out := s.quiet(`kubectl get datacenters,dnszones -A -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Delegated")].status}{.status.synced} {end}'`)
		return strings.Join(strings.Fields(out), " ") == "4/4 4/4 True True True"
	})
	s.run("kubectl get dnszones -A")
	s.run("kubectl get dnszone root -n dns-root -o wide", table("NAME", "ZONE", "GROUP", "MODE", "RECORDS", "REASON"))
	s.run("kubectl get datacenters")
}

// leaf is a name at the end of the walk: it is two zone cuts below corp.
const leaf = "auth.cards.pay.corp"

func answerNames(s *story) {
	a, b := s.first("dc-a", "authoritative"), s.first("dc-b", "authoritative")
	s.run(fmt.Sprintf("dig +norec +noall +answer @%s mail.pay.corp", a), plain)
	s.run(fmt.Sprintf("dig +norec +noall +answer @%s mail.pay.corp", b), plain)
	servers := s.Of("authoritative")
	s.everywhere(time.Second, hasAddress("mail.pay.corp", "10.1.0.25"), addressesOf(servers))
	s.told("All %d authoritative servers give this answer.", len(servers))
}

// first returns the first address of a group.
func (s *story) first(datacenter, group string) netip.Addr {
	for _, srv := range s.Servers {
		if srv.Datacenter == datacenter && srv.Group == group {
			return srv.Addr
		}
	}
	s.fail("datacenter %s has no group %s", datacenter, group)
	return netip.Addr{}
}

// refer asks a server for a name below one of its zone cuts, and returns an address of a server that it refers to.
func (s *story) refer(at netip.Addr, name, cut string) netip.Addr {
	s.run(fmt.Sprintf("dig +norec +noall +authority +additional @%s %s", at, name), plain, without("OPT PSEUDOSECTION"))
	reply, err := ask(at, name, dns.TypeA)
	s.must(err)
	s.check(!reply.Authoritative && len(reply.Answer) == 0 && len(reply.Ns) > 0, "%s refers to other servers for %s:\n%s", at, name, reply)
	s.check(reply.Ns[0].Header().Name == dns.Fqdn(cut), "the referral is to %s:\n%s", cut, reply)
	for _, rr := range reply.Extra {
		if a, is := rr.(*dns.A); is {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			return addr
		}
	}
	s.fail("the referral of %s for %s has no address", at, name)
	return netip.Addr{}
}

func walk(s *story) {
	root := s.first("dc-a", "root")
	s.say("As a resolver does it: it knows the addresses of the root servers, asks one of them, and follows.")
	next := s.refer(root, leaf, "corp")
	s.say("The root knows the servers of corp and no more. One of them has the zones below corp, too:")
	for _, zone := range []string{"pay.corp", "cards.pay.corp"} {
		s.run(fmt.Sprintf("dig +norec +noall +answer @%s %s NS", next, zone), plain)
		reply, err := ask(next, zone, dns.TypeNS)
		s.must(err)
		s.check(reply.Authoritative && len(reply.Answer) == 2, "%s has a server name in each of the two datacenters:\n%s", zone, reply)
	}
	s.run(fmt.Sprintf("dig +norec +noall +comments +answer @%s %s", next, leaf), having("flags: qr", leaf+"."), plain)
	reply, err := ask(next, leaf, dns.TypeA)
	s.must(err)
	s.check(reply.Authoritative && slices.Equal(datas(reply.Answer, dns.TypeA), []string{"10.1.3.2"}), "the leaf has its address:\n%s", reply)
	s.say("A part of corp that somebody else looks after, on servers that are not ours:")
	s.refer(next, "mail.ad.corp", "ad.corp")
}

func internet(s *story) {
	root := s.first("dc-b", "root")
	s.run(fmt.Sprintf("dig +norec +dnssec +noall +authority +additional @%s www.example.org", root), plain, without("OPT PSEUDOSECTION"), perType)
	reply, err := ask(root, "org", dns.TypeDS)
	s.must(err)
	s.check(reply.Authoritative && len(datas(reply.Answer, dns.TypeDS)) > 0, "org. has a DS in the root:\n%s", reply)
	reply, err = ask(root, "www.example.org", dns.TypeA)
	s.must(err)
	s.check(len(datas(reply.Ns, dns.TypeNS)) == 6 && len(datas(reply.Extra, dns.TypeA)) == 6, "the referral to org. has six servers with glue:\n%s", reply)
	s.say("The ConfigMap has the 13 root servers of the internet and their DNSKEYs too. They do not survive:")
	s.run(fmt.Sprintf("dig +norec +noall +answer +additional @%s . NS", root), plain, without("OPT PSEUDOSECTION"))
	for _, srv := range s.Of("root") {
		priming, err := ask(srv.Addr, ".", dns.TypeNS)
		s.must(err)
		s.check(slices.Equal(datas(priming.Answer, dns.TypeNS), []string{"ns-dc-a.", "ns-dc-b."}), "priming at %s names our servers alone:\n%s", srv.Addr, priming)
		ours := addressesOf(s.Of("root"))
		for _, text := range datas(priming.Extra, dns.TypeA) {
			addr, err := netip.ParseAddr(text)
			s.must(err)
			s.check(slices.Contains(ours, addr), "%s is one of our root servers", addr)
		}
		keys, err := ask(srv.Addr, ".", dns.TypeDNSKEY)
		s.must(err)
		s.check(keys.Rcode == dns.RcodeSuccess && len(keys.Answer) == 0, "there is no DNSKEY at the root:\n%s", keys)
	}
	s.told("All %d root servers name our servers and no others, and have no DNSKEY.", len(s.Of("root")))
}

func change(s *story) {
	servers := s.Of("authoritative")
	const before, after = "10.1.0.90", "10.1.0.91"
	s.everywhere(time.Second, hasAddress("api.pay.corp", before), addressesOf(servers))
	s.say("Meanwhile every server is asked for api.pay.corp each millisecond.")
	var times []time.Time
	began := time.Now()
	waiting := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(s.Context, 20*time.Second)
		defer cancel()
		var err error
		times, err = hasAddress("api.pay.corp", after).awaitEverywhere(ctx, addressesOf(servers))
		waiting <- err
	}()
	s.run("sed s/" + before + "/" + after + "/ config/samples/22-zone-pay-corp.yaml | kubectl apply -f -")
	returned := time.Now()
	s.must(<-waiting)
	s.facts += len(servers)
	for i, srv := range servers {
		s.output([]string{fmt.Sprintf("%-11s %s/%s  %s after kubectl began", srv.Addr, srv.Datacenter, srv.Instance, inWords(times[i].Sub(began)))})
	}
	last := latest(times)
	when := inWords(last.Sub(returned)) + " after"
	if last.Before(returned) {
		when = inWords(returned.Sub(last)) + " before"
	}
	s.told("The last server had it %s kubectl returned; kubectl itself took %s.", when, inWords(returned.Sub(began)))
	s.run(fmt.Sprintf("dig +norec +short @%s api.pay.corp", s.first("dc-b", "authoritative")))
}

// legacyLine is the line of legacy.zone that has a mistake.
const legacyLine = 5

func mistake(s *story) {
	s.say("A zone file with an impossible address in line %d becomes a further source of pay.corp:", legacyLine)
	s.run("kubectl create configmap legacy -n payments --from-file=hack/demo/legacy.zone")
	s.run(`kubectl patch dnszone pay -n payments --type=merge -p '{"spec": {"recordsFrom": [
{"configMapKeyRef": {"name": "legacy", "key": "legacy.zone"}}]}}'`)
	servers := addressesOf(s.Of("authoritative"))
	s.everywhere(20*time.Second, hasAddress("scanner.pay.corp", "10.1.4.11"), servers)
	findings := func() string { return s.quiet("kubectl get dnszone pay -n payments -o jsonpath='{.status.findings}'") }
	s.until(10*time.Second, "status.findings names the line", func() bool { return strings.Contains(findings(), fmt.Sprintf(`"line":%d,`, legacyLine)) })
	out := s.run("kubectl describe dnszone pay -n payments", section("Findings:"), wrapped)
	s.check(strings.Contains(out, "10.1.4.300"), "kubectl describe quotes what is wrong")
	s.run(fmt.Sprintf("dig +norec +short @%s scanner.pay.corp vault.pay.corp", servers[0]))
	s.told("The records before and after the mistake are served by all servers.")
	s.say("Impossible values in a manifest do not get that far:")
	s.refused(`kubectl patch dnszone pay -n payments --type=merge -p '{"spec": {"ttl": {"default": "soon"}}}'`)
}

// refused runs a command line that must fail, and shows what it says.
func (s *story) refused(line string) {
	s.command(line)
	out, err := s.Shell(line)
	s.output(wrapped(linesOf(out)))
	s.check(err != nil, "this is refused: %s", line)
}

func claims(s *story) {
	s.run("kubectl apply -f hack/demo/claims.yaml")
	decided := func() string {
		return s.quiet(`kubectl get dnszones -n cards -o jsonpath='{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Accepted")].status} {end}'`)
	}
	s.until(10*time.Second, "all four claims are refused", func() bool { return strings.Count(decided(), "=False") == 4 })
	s.check(strings.Contains(decided(), "cards=True"), "the tenant's own zone goes on")
	s.run("kubectl get dnszones -n cards -o wide", table("NAME", "ZONE", "PROGRAMMED", "READY", "REASON"))
	authoritative := addressesOf(s.Of("authoritative"))
	s.everywhere(time.Second, hasAddress("mail.pay.corp", "10.1.0.25"), authoritative)
	s.everywhere(time.Second, hasAddress("api.pay.corp", "10.1.0.91"), authoritative)
	reply, err := ask(s.first("dc-a", "root"), "www.example.com", dns.TypeA)
	s.must(err)
	s.check(len(datas(reply.Ns, dns.TypeNS)) == 13, "com. is still referred to its own servers:\n%s", reply)
	s.told("None of the four is served anywhere; api.pay.corp, mail.pay.corp and com. answer as before.")
	s.run("kubectl delete -f hack/demo/claims.yaml", first(1))
}

// approval is the command in the message of RemovalWithheld.
var approval = regexp.MustCompile(`kubectl annotate [^'"]+`)

func vanish(s *story) {
	servers := addressesOf(s.Of("authoritative"))
	s.say("Somebody empties the ConfigMap:")
	s.run("kubectl create configmap legacy -n payments --from-literal=legacy.zone= --dry-run=client -o yaml | kubectl replace -f -")
	message := ""
	s.until(10*time.Second, "the removal is withheld", func() bool {
		message = s.quiet(`kubectl get dnszone pay -n payments -o jsonpath='{.status.conditions[?(@.type=="RemovalWithheld")].message}'`)
		return approval.MatchString(message)
	})
	s.run(`kubectl get dnszone pay -n payments -o jsonpath='{.status.conditions[?(@.type=="RemovalWithheld")].message}'`, wrapped)
	s.everywhere(time.Second, hasAddress("till-12.pay.corp", "10.1.5.12"), servers)
	s.told("All servers still have the records. This once it was meant:")
	s.run(strings.TrimSpace(approval.FindString(message)))
	gone := expectation{name: "till-12.pay.corp", rrtype: dns.TypeA, is: func(m *dns.Msg) bool { return m.Rcode == dns.RcodeNameError }}
	began := time.Now()
	last := latest(s.everywhere(20*time.Second, gone, servers))
	s.told("The records are gone from all servers %s later.", inWords(last.Sub(began)))
	s.run("kubectl wait --for=condition=RemovalWithheld=False dnszone/pay -n payments --timeout=20s")
}

// questions are one question for each server, with the answer that they give now.
func (s *story) questions(servers []*estate.Server) map[netip.Addr]expectation {
	all := map[netip.Addr]expectation{}
	for _, srv := range servers {
		all[srv.Addr] = hasAddress("api.pay.corp", "10.1.0.91")
		if srv.Group == "root" {
			all[srv.Addr] = expectation{name: "www.example.com", rrtype: dns.TypeA, is: func(m *dns.Msg) bool { return len(datas(m.Ns, dns.TypeNS)) == 13 }}
		}
	}
	return all
}

// loadPeriod is how often each server is asked while things are killed.
const loadPeriod = 5 * time.Millisecond

// answeredAll ends the questions, and tells that none was left without its answer.
func (s *story) answeredAll(l *load, what string) {
	asked, answered, err := l.stop()
	s.check(err == nil && asked == answered && asked > 0, "every question is answered: %d of %d were; %v", answered, asked, err)
	s.told("%s %d questions were asked and %d answered as before.", what, asked, answered)
}

// received returns how many zones each server has got from a hub since it started.
func (s *story) received() map[string]float64 {
	counts := map[string]float64{}
	for _, srv := range s.Servers {
		text, err := estate.Metrics(s.Context, &srv.Program)
		s.must(err)
		s.check(strings.Contains(text, "\n"+receivedMetric+" "), "%s counts the zones that it gets", srv.Name)
		counts[srv.Name] = estate.Sum(text, receivedMetric)
	}
	return counts
}

const receivedMetric = "fingerpost_dnsserver_zones_installed_total"

// versions returns the resourceVersions of all objects whose status the operator writes.
func (s *story) versions() string {
	return s.quiet(`kubectl get dns -A -o jsonpath='{range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion} {end}'`)
}

// inSync reports whether all servers are connected to a manager and have what it wants. fleet is how many zones all
// servers have together.
func (s *story) inSync(m *estate.Program, fleet float64) bool {
	text, err := estate.Metrics(s.Context, m)
	return err == nil && estate.Sum(text, "fingerpost_hub_server_zones_wanted") == fleet && estate.Sum(text, "fingerpost_hub_server_zones_current") == fleet
}

// fleet is how many zones the servers have together: each those of its group.
func (s *story) fleet() (zones float64) {
	groups := s.quiet("kubectl get dnszones -A -o jsonpath='{.items[*].spec.serverGroup}'")
	for g := range strings.FieldsSeq(groups) {
		zones += float64(len(s.Of(g)))
	}
	return zones
}

// settled returns versions when they have not changed for so long that no status waits to be written: the operator writes
// that of one object once a second at most.
func (s *story) settled() string {
	versions, since := s.versions(), time.Now()
	s.until(30*time.Second, "no status is written any more", func() bool {
		if now := s.versions(); now != versions {
			versions, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	return versions
}

func killLeader(s *story) {
	versions, received, fleet := s.settled(), s.received(), s.fleet()
	old := s.Leader()
	s.check(old != nil, "a manager leads")
	asking := startLoad(s.Context, loadPeriod, s.questions(s.Servers))
	began := time.Now()
	s.kill(old)
	now := s.awaitLeader()
	s.check(now != old, "the other manager leads")
	s.told("%s leads %s later (leases last %s here, by default 15 s).", now.Name, s.ago(began), leaseDuration)
	synced := s.until(30*time.Second, "all servers are in sync with "+now.Name, func() bool { return s.inSync(now, fleet) })
	s.told("All %d servers are in sync with it %s after the kill.", len(s.Servers), inWords(synced.Sub(began)))
	for name, count := range s.received() {
		s.check(count == received[name], "nothing is sent again: %s had got %v zones, now %v", name, received[name], count)
	}
	s.told("It sent no zone again: the servers said by digest what they hold (%s has not grown anywhere).", receivedMetric)
	written := s.settled()
	s.check(written == versions, "no status is written again: they were %s and are %s", versions, written)
	s.told("It wrote no status again: every object has the resourceVersion that it had.")
	s.answeredAll(asking, "Meanwhile")
}

func killAll(s *story) {
	fromDisk, fromSibling := s.Of("root")[0], s.Of("authoritative")[3]
	others := slices.DeleteFunc(slices.Clone(s.Servers), func(srv *estate.Server) bool { return srv == fromDisk || srv == fromSibling })
	asking := startLoad(s.Context, loadPeriod, s.questions(others))
	for _, m := range s.Managers {
		if m.Running() {
			s.kill(m)
		}
	}
	s.must(s.ControlPlane.StopAPIServer())
	s.refused("kubectl get dnszones -A --request-timeout=2s 2>&1 | tail -n 1")
	s.run(fmt.Sprintf("dig +norec +short @%s api.pay.corp", s.first("dc-b", "authoritative")))
	s.say("A root server is killed and started again, with nobody to ask:")
	s.kill(&fromDisk.Program)
	s.told("It refers to com. from its disk %s after its start.", s.restart(fromDisk))
	s.say("An authoritative one loses its disk, too:")
	s.kill(&fromSibling.Program)
	s.run("rm -r " + s.state(fromSibling))
	s.told("It answers from what its sibling gave it %s after its start.", s.restart(fromSibling))
	s.answeredAll(asking, "At the other servers")
}

// kill ends a program, and shows how.
func (s *story) kill(p *estate.Program) {
	s.command(fmt.Sprintf("kill -9 %d   # %s", p.PID(), p.Name))
	s.must(p.Kill())
}

// restart starts a server, waits until it answers, and says how long that took.
func (s *story) restart(srv *estate.Server) string {
	began := time.Now()
	s.must(s.Start(&srv.Program))
	x := s.questions([]*estate.Server{srv})[srv.Addr]
	times := s.everywhere(20*time.Second, x, []netip.Addr{srv.Addr})
	return inWords(times[0].Sub(began))
}

func comeBack(s *story) {
	began := time.Now()
	s.must(s.ControlPlane.StartAPIServer(s.Context))
	s.told("The API server is ready after %s.", s.ago(began))
	began = time.Now()
	for _, m := range s.Managers {
		s.must(s.Start(m))
	}
	leader := s.awaitLeader()
	s.told("%s leads %s after the start of both managers: the lease of the one that was killed had to end.", leader.Name, s.ago(began))
	fleet := s.fleet()
	s.until(30*time.Second, "all servers are in sync", func() bool { return s.inSync(leader, fleet) })
	s.told("All %d servers are in sync with it after %s.", len(s.Servers), s.ago(began))
	s.run("sed s/10.1.0.90/10.1.0.92/ config/samples/22-zone-pay-corp.yaml | kubectl apply -f -")
	s.everywhere(20*time.Second, hasAddress("api.pay.corp", "10.1.0.92"), addressesOf(s.Of("authoritative")))
	s.run("kubectl wait --for=condition=Ready dnszones,datacenters --all -A --timeout=30s", having("pay", "dc-"))
	s.run("kubectl get dnszones -A")
	s.run("kubectl get datacenters")
	out := s.quiet(`kubectl get datacenters -o jsonpath='{range .items[*]}{.status.serversReady} {.status.synced} {end}'`)
	s.check(strings.TrimSpace(out) == "4/4 4/4 4/4 4/4", "every server of both datacenters is connected and current: %s", out)
	steeredAgain(s)
	s.must(os.Remove(s.Path("root.zone")))
}
