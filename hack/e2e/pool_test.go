//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
)

// poolPods selects the members of the pool, and membersOfPool is how many there are in each datacenter.
const (
	poolPods      = "-l fingerpost.dev/pool=production"
	membersOfPool = 2
)

// throughPool are questions about a name of the hierarchy that clients ask the pool, one in each of the datacenters.
func throughPool(name, want string, of ...string) []question {
	var all []question
	for _, dc := range of {
		at := 1 + slices.Index(datacenters, dc)
		all = append(all, question{
			about: dc + " resolvers", from: "wan", client: cluster.ClientAddress(at), server: cluster.ServiceAddress(at, 3),
			name: name, rrtype: dns.TypeA, want: want, recursion: true,
		})
	}
	return all
}

// resolved are the questions that the pool answers all the time.
func resolved(of ...string) []question { return throughPool("api.pay.corp", "10.1.0.90", of...) }

func (s *story) applyPool() {
	for _, p := range places {
		s.run(p.in, "kubectl label namespace "+p.namespace+" pod-security.kubernetes.io/enforce=restricted --overwrite")
	}
	began := time.Now()
	s.run(cluster.Central, "kubectl apply -f hack/e2e/testdata/pool.yaml")
	s.allAnswered(3*time.Minute, resolved(datacenters...)...)
	s.told("clients in all datacenters resolve names %s after the apply began", ago(began))
	s.run(cluster.Central, "kubectl wait --for=condition=Ready resolverpool/production -n dns-root --timeout=3m")
	s.told("all members are ready, under restricted pod security, after %s", ago(began))
	fmt.Println(indent(s.run(cluster.Central, "kubectl get resolverpools -A -o wide && kubectl get pods,services,poddisruptionbudgets -n "+namespace+" "+poolPods)))
}

// moveName has the answer of a name with a TTL of a minute changed while all members have it in their caches.
func (s *story) moveName() {
	before, after := throughPool("app.pay.corp", node("dc-a"), datacenters...), throughPool("app.pay.corp", node("dc-b"), datacenters...)
	s.allAnswered(time.Minute, before...)
	for range 4 * membersOfPool { // from new ports: all members get some
		s.allAnswered(time.Minute, before...)
	}
	reply, err := before[0].ask(s.Context(), s.Cluster, "udp")
	if err != nil {
		s.Fatal(err)
	}
	s.told("members have it in their caches: its TTL is %d s", reply.Answer[0].Header().Ttl)
	began := time.Now()
	s.run(cluster.Central, "kubectl apply -f hack/e2e/testdata/drain.yaml")
	var authorities []question
	for i, dc := range datacenters {
		authorities = append(authorities, question{about: dc, from: "wan", server: cluster.ServiceAddress(i+1, 2), name: "app.pay.corp", rrtype: dns.TypeA, want: node("dc-b")})
	}
	s.allAnswered(time.Minute, authorities...)
	s.told("all authoritative servers say %s after %s", node("dc-b"), ago(began))
	var wait sync.WaitGroup
	last := make([]time.Duration, len(after))
	for i, q := range after {
		wait.Go(func() { last[i] = s.lastWrong(q, 10*time.Second) })
	}
	wait.Wait()
	if worst := slices.Max(last); worst > 5*time.Second {
		s.Errorf("resolvers gave the old address for %s more", worst)
	} else {
		s.told("no client of a resolver got the old address later than %.1f s after that, in 10 s of questions to all members", worst.Seconds())
	}
	s.run(cluster.Central, "kubectl delete -f hack/e2e/testdata/drain.yaml")
	s.allAnswered(time.Minute, before...)
}

// lastWrong asks a question for a time, as often as a client does, and returns when the last answer came that was another
// one than wanted, from the beginning; 0 if none was.
func (s *story) lastWrong(q question, during time.Duration) (last time.Duration) {
	began := time.Now()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for time.Since(began) < during {
		if _, err := q.ask(s.Context(), s.Cluster, "udp"); err != nil {
			last = time.Since(began)
		}
		<-tick.C
	}
	return last
}

// killEngine kills an engine in its pod, whose agent goes on.
func (s *story) killEngine() {
	get := "kubectl get pods -n " + namespace + " " + poolPods + ",fingerpost.dev/datacenter=dc-a,fingerpost.dev/engine=Unbound -o jsonpath="
	pod := s.quiet(cluster.Central, get+"'{.items[0].metadata.name}'")
	id := strings.TrimPrefix(s.quiet(cluster.Central, get+"'{.items[0].status.containerStatuses[0].containerID}'"), "containerd://")
	s.undisturbed(resolved(datacenters...), func() {
		line := "kill -9 $(cat /proc/$(ctr tasks ls | awk '$1 == \"" + id + "\" {print $2}')/task/*/children)"
		fmt.Printf("  $ %s # on the node of dc-a: the engine of pod %s\n", line, pod)
		cmd, err := s.Exec(s.Context(), "dc-a", "bash", "-c", line)
		if err != nil {
			s.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			s.Fatalf("killing the engine of %s: %v\n%s", pod, err, out)
		}
		s.run(cluster.Central, "kubectl wait --for=condition=Ready pod/"+pod+" -n "+namespace+" --timeout=1m")
	})
	if restarts := s.quiet(cluster.Central, get+"'{.items[0].status.containerStatuses[0].restartCount}'"); restarts != "0" {
		s.Errorf("the container was started %s times more: the agent did not start the engine", restarts)
	}
}

// deletePool deletes the pool, and holds that nothing of it is left.
func (s *story) deletePool() {
	s.run(cluster.Central, "kubectl delete resolverpool production -n dns-root --timeout=2m")
	for _, p := range places {
		s.until(2*time.Minute, "nothing of the pool is left at "+p.in, func() bool {
			out, err := s.try(p.in, "kubectl get deployments,services,pods,poddisruptionbudgets,networkpolicies,configmaps,secrets,horizontalpodautoscalers -n "+p.namespace+" "+poolPods+" -o name")
			return err == nil && out == ""
		})
	}
	s.told("nothing of it is left in any datacenter")
}
