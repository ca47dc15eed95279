//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/images"
)

// namespace is that of the release; remoteNamespace has the servers of dc-c, in its own cluster.
const (
	namespace       = "fingerpost-system"
	remoteNamespace = "fingerpost"
)

// remote is the datacenter with a cluster of its own, and that cluster.
const remote = "dc-c"

var datacenters = []string{"dc-a", "dc-b", remote}

// ofGroup are questions about a zone that the servers of a group have, one to each of the datacenters, by a client that is near
// to it.
func ofGroup(group string, of ...string) []question {
	var all []question
	for i, dc := range datacenters {
		q := question{about: dc + " " + group, from: "wan", client: cluster.ClientAddress(i + 1), rrtype: dns.TypeA}
		switch group {
		case "root":
			q.server, q.name, q.rrtype = cluster.ServiceAddress(i+1, 1), ".", dns.TypeSOA
		case "authoritative":
			q.server, q.name, q.want = cluster.ServiceAddress(i+1, 2), "api.pay.corp", "10.1.0.90"
		}
		if slices.Contains(of, dc) {
			all = append(all, q)
		}
	}
	return all
}

// everything are questions to both groups of datacenters.
func everything(of ...string) []question {
	return append(ofGroup("root", of...), ofGroup("authoritative", of...)...)
}

// node returns the address of a datacenter's node, which is also what the name portal has there.
func node(dc string) string { return fmt.Sprintf("10.88.0.%d", 11+slices.Index(datacenters, dc)) }

// portal is the question about the steered name that a client near to one datacenter asks the servers of another.
func portal(client, server, want string) question {
	at := func(dc string) int { return 1 + slices.Index(datacenters, dc) }
	return question{
		about: "portal", from: "wan", client: cluster.ClientAddress(at(client)), server: cluster.ServiceAddress(at(server), 2),
		name: "portal.pay.corp", rrtype: dns.TypeA, want: want,
	}
}

// answered reports whether a question gets its answer now.
func (s *story) answered(q question) bool {
	_, err := q.ask(s.Context(), s.Cluster, "udp")
	return err == nil
}

// allAnswered waits until all questions get their answers.
func (s *story) allAnswered(limit time.Duration, questions ...question) {
	s.Helper()
	for _, q := range questions {
		s.until(limit, q.about+" answers", func() bool { return s.answered(q) })
	}
}

func TestTheWhole(t *testing.T) {
	s := &story{T: t, root: checkout(t), dir: folder(t), began: time.Now()}
	s.step("Programs, images and the chart are built.", s.build)
	s.step("Three nodes run, one in each datacenter; that of dc-c is a cluster of its own.", s.start)
	defer s.clear(t)
	before := map[string][]string{}
	for _, in := range []string{cluster.Central, remote} {
		before[in] = s.objects(in)
	}
	s.step("One values file gives the operator, two datacenters and the private root.", s.install)
	s.step("A third datacenter, in another cluster, is one manifest more.", s.addRemote)
	s.step("Teams apply their zones, and clients get the answers of the datacenter that they are near to.", s.applySamples)
	s.step("A rolling restart of all servers loses no question.", s.restart)
	s.step("Resolvers of two makers run in all datacenters.", s.applyPool)
	s.step("A name moves that all of them have in their caches.", s.moveName)
	s.step("The engine of a resolver is killed.", s.killEngine)
	s.step("The upgrade from the version before, and the way back, lose no question.", s.upgrade)
	s.step("A server is killed.", s.killServer)
	s.step("The managers are away for a minute.", s.loseManagers)
	s.step("dc-b is cut off from everything, and comes back.", s.partition)
	s.step("The node of dc-b loses power, and comes back.", s.killNode)
	s.step("The resolvers are deleted.", s.deletePool)
	s.step("Datacenters are deleted.", s.deleteDatacenters)
	s.step("The release is uninstalled, and nothing is left but the kinds.", func() { s.uninstall(before) })
	fmt.Printf("\nAll of it is true. It took %s.\n", ago(s.began))
}

// clear ends the cluster.
func (s *story) clear(t *testing.T) {
	t.Helper()
	if *keep {
		fmt.Printf("\nThe cluster runs on, in %s.\n", filepath.Join(s.dir, "cluster"))
		return
	}
	if err := s.Down(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(s.dir); err != nil {
		t.Error(err)
	}
}

// build makes what the story is about: the images of this checkout and of what came before it.
func (s *story) build() {
	charttools, err := controlplane.ChartTools(s.Context(), os.Stderr)
	if err != nil {
		s.Fatal(err)
	}
	s.helm = filepath.Join(charttools, "helm4")
	git := func(args ...string) string {
		s.Helper()
		out, err := exec.Command("git", append([]string{"-C", s.root}, args...)...).Output()
		if err != nil {
			s.Fatalf("git %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	commit := git("rev-parse", "--short", "HEAD")
	from, err := exec.Command("git", "-C", s.root, "describe", "--tags", "--abbrev=0", "HEAD^").Output()
	parent := strings.TrimSpace(string(from))
	if err != nil { // there is no tag yet
		parent = git("rev-parse", "--short", "HEAD^")
	}
	s.new, s.old = "0.0.0-e2e."+commit, "0.0.0-before."+parent
	earlier := filepath.Join(s.dir, "earlier")
	git("worktree", "add", "--detach", "--force", earlier, parent)
	s.Cleanup(func() { git("worktree", "remove", "--force", earlier) })
	for version, dir := range map[string]string{s.new: s.root, s.old: earlier} {
		_, err := images.Build(s.Context(), images.Options{
			Checkout: dir, Version: version, Out: filepath.Join(s.dir, version),
			Architectures: []string{runtime.GOARCH}, Images: images.Names(), Progress: os.Stderr,
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	s.told("version %s is that of this checkout, %s the one before", s.new, s.old)
}

func (s *story) start() {
	programs, archives, err := cluster.Prepare(s.Context(), filepath.Join(s.dir, "packed"), os.Stderr)
	if err != nil {
		s.Fatal(err)
	}
	s.tools = programs
	c, err := cluster.Up(context.WithoutCancel(s.Context()), cluster.Options{
		Dir: filepath.Join(s.dir, "cluster"), Programs: programs, Datacenters: datacenters, Own: []string{remote},
		Stay: *keep, Images: archives, Progress: os.Stdout,
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Cluster = c
	for _, version := range []string{s.old, s.new} {
		for _, name := range images.Names() {
			archive := filepath.Join(s.dir, version, "fingerpost-"+name+".tar")
			named := filepath.Join(s.dir, version+"-"+name+".tar")
			if err := os.Rename(archive, named); err != nil {
				s.Fatal(err)
			}
			if err := c.LoadImage(named); err != nil {
				s.Fatal(err)
			}
		}
	}
	s.run(cluster.Central, "kubectl get nodes -L topology.kubernetes.io/zone")
	s.run(remote, "kubectl get nodes -L topology.kubernetes.io/zone")
}

func (s *story) helmArgs(version string) string {
	return "fingerpost charts/fingerpost -n " + namespace + " -f hack/e2e/testdata/values.yaml --set image.tag=" + images.Tag(version)
}

func (s *story) install() {
	began := time.Now()
	root := ofGroup("root", "dc-a", "dc-b")
	first := make(chan time.Duration, 1)
	ctx, stop := context.WithCancel(s.Context())
	defer stop()
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if _, err := root[0].ask(ctx, s.Cluster, "udp"); err == nil {
				first <- time.Since(began)
				return
			}
			<-tick.C
		}
	}()
	s.run(cluster.Central, "helm4 install "+s.helmArgs(s.new)+" --create-namespace --wait --timeout 3m")
	s.told("helm has returned after %s", ago(began))
	select {
	case took := <-first:
		s.told("the first answer of a root server came %.1f s after helm was started", took.Seconds())
	case <-time.After(3 * time.Minute):
		s.Fatal("no root server answers")
	}
	s.allAnswered(time.Minute, root...)
	s.told("both datacenters answer for the root %s after helm was started", ago(began))
	s.run(cluster.Central, "kubectl wait --for=condition=Ready datacenters --all --timeout=2m")
	fmt.Println(indent(s.run(cluster.Central, "kubectl get datacenters && kubectl get pods,services -n "+namespace)))
}

// addRemote applies dc-c with credentials that have no more rights than it takes.
func (s *story) addRemote() {
	s.run(remote, "kubectl apply -f config/rbac/remote/")
	secret := "kubectl get secret fingerpost-operator -n " + remoteNamespace + " -o jsonpath="
	token := s.quiet(remote, secret+"'{.data.token}' | base64 -d")
	authority := s.quiet(remote, secret+`'{.data.ca\.crt}'`)
	server := s.quiet(remote, "kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}'")
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: dc-c, cluster: {server: %q, certificate-authority-data: %q}}]
users: [{name: operator, user: {token: %q}}]
contexts: [{name: dc-c, context: {cluster: dc-c, user: operator}}]
current-context: dc-c
`, server, authority, token)
	if err := os.WriteFile(filepath.Join(s.dir, "dc-c.kubeconfig"), []byte(kubeconfig), 0o600); err != nil {
		s.Fatal(err)
	}
	s.run(cluster.Central, "kubectl create secret generic dc-c -n "+namespace+" --from-file=kubeconfig=$DIR/dc-c.kubeconfig")
	began := time.Now()
	s.run(cluster.Central, "kubectl apply -f hack/e2e/testdata/dc-c.yaml")
	q := question{about: "NS set of the root", from: "wan", client: cluster.ClientAddress(1), server: cluster.ServiceAddress(1, 1), name: ".", rrtype: dns.TypeNS, want: "ns-dc-c."}
	s.allAnswered(3*time.Minute, q)
	s.told("its servers are in the NS set of the root, at dc-a, %s after kubectl was started", ago(began))
	s.allAnswered(time.Minute, ofGroup("root", remote)...)
	s.run(cluster.Central, "kubectl wait --for=condition=Ready datacenters --all --timeout=2m")
	fmt.Println(indent(s.run(cluster.Central, "kubectl get datacenters")))
	fmt.Println(indent(s.run(remote, "kubectl get pods,services -n "+remoteNamespace)))
}

func (s *story) applySamples() {
	began := time.Now()
	s.run(cluster.Central, "kubectl apply -f config/samples/00-namespaces.yaml")
	s.run(cluster.Central, "kubectl kustomize --load-restrictor=LoadRestrictionsNone hack/e2e/testdata | kubectl apply -f -")
	s.allAnswered(time.Minute, everything(datacenters...)...)
	s.told("all datacenters answer for all zones %s after the apply began", ago(began))
	s.run(cluster.Central, "kubectl wait --for=condition=Ready dnszones --all -A --timeout=1m")
	for _, dc := range datacenters {
		s.allAnswered(time.Minute, portal(dc, dc, node(dc)))
		s.told("a client at %s gets %s from %s, by its own address alone", cluster.ClientAddress(1+slices.Index(datacenters, dc)), node(dc), dc)
	}
	s.allAnswered(time.Minute, portal("dc-a", "dc-b", node("dc-a")))
	s.told("a client near to dc-a gets dc-a's address from the servers of dc-b, too")
	delegated := question{about: "referral", from: "wan", server: cluster.ServiceAddress(1, 1), name: "api.pay.corp", rrtype: dns.TypeA}
	var reply *dns.Msg
	took := s.until(time.Minute, "the root refers to corp with glue of all datacenters", func() bool {
		var err error
		reply, err = delegated.ask(s.Context(), s.Cluster, "udp")
		if err != nil {
			return false
		}
		for i := range datacenters {
			if !slices.Contains(rdata(reply.Extra), cluster.ServiceAddress(i+1, 2).String()) {
				return false
			}
		}
		return true
	})
	s.told("%.1f s later the root refers to corp with addresses of all three datacenters: %s", took.Seconds(), strings.Join(rdata(reply.Ns), " "))
	s.run(cluster.Central, "kubectl wait --for=condition=Delegated dnszones corp -n dns-corp --timeout=1m")
	fmt.Println(indent(s.run(cluster.Central, "kubectl get dnszones,dynamicrecords -A")))
}

// places are where servers run: cluster and namespace.
var places = []struct{ in, namespace string }{{cluster.Central, namespace}, {remote, remoteNamespace}}

// settled waits until all servers of StatefulSets run and have rolled out.
func (s *story) settled() {
	s.Helper()
	for _, p := range places {
		s.until(5*time.Minute, "all servers at "+p.in+" are ready", func() bool {
			out, err := s.try(p.in, "kubectl get statefulsets -n "+p.namespace+" -l app.kubernetes.io/managed-by=fingerpost -o jsonpath='{range .items[*]}{.spec.replicas}={.status.readyReplicas} {end}'")
			for set := range strings.FieldsSeq(out) {
				if wanted, ready, _ := strings.Cut(set, "="); wanted != ready {
					return false
				}
			}
			return err == nil
		})
	}
}

// restart has the operator put all servers anew, by a change of their pods.
func (s *story) restart() {
	s.undisturbed(everything(datacenters...), func() {
		began := time.Now()
		change := `[{"op":"add","path":"/spec/serverGroups/0/pods/annotations","value":{"restarted":"1"}},{"op":"add","path":"/spec/serverGroups/1/pods/annotations","value":{"restarted":"1"}}]`
		for _, dc := range datacenters {
			s.run(cluster.Central, "kubectl patch datacenter "+dc+" --type=json -p '"+change+"'")
		}
		s.awaitAnnotation("restarted", "1")
		s.settled()
		s.told("all %d servers were put anew in %s", s.count(), ago(began))
	})
}

// awaitAnnotation waits until all servers' pods have an annotation.
func (s *story) awaitAnnotation(name, value string) {
	s.Helper()
	s.until(5*time.Minute, "all servers have the annotation "+name, func() bool {
		for _, p := range places {
			out, err := s.try(p.in, "kubectl get pods -n "+p.namespace+" -l app.kubernetes.io/managed-by=fingerpost -o jsonpath='{range .items[*]}{.metadata.annotations."+name+"},{.status.conditions[?(@.type==\"Ready\")].status} {end}'")
			if err != nil || out == "" {
				return false
			}
			for pod := range strings.FieldsSeq(out) {
				if pod != value+",True" {
					return false
				}
			}
		}
		return true
	})
}

// awaitImage waits until all servers run a version.
func (s *story) awaitImage(version string) {
	s.Helper()
	s.until(5*time.Minute, "all servers and resolvers run "+version, func() bool {
		for _, p := range places {
			out, err := s.try(p.in, "kubectl get pods -n "+p.namespace+" -l app.kubernetes.io/managed-by=fingerpost -o jsonpath='{range .items[*]}{.spec.containers[0].image},{.status.conditions[?(@.type==\"Ready\")].status} {end}'")
			if err != nil || out == "" {
				return false
			}
			for pod := range strings.FieldsSeq(out) {
				if !strings.HasSuffix(pod, ":"+images.Tag(version)+",True") {
					return false
				}
			}
		}
		return true
	})
}

// count returns how many servers' pods there are.
func (s *story) count() int {
	n := 0
	for _, p := range places {
		n += len(strings.Fields(s.quiet(p.in, "kubectl get pods -n "+p.namespace+" -l app.kubernetes.io/managed-by=fingerpost -o name")))
	}
	return n
}

func (s *story) upgrade() {
	for _, version := range []string{s.old, s.new} {
		s.undisturbed(append(everything(datacenters...), resolved(datacenters...)...), func() {
			began := time.Now()
			s.run(cluster.Central, "helm4 upgrade "+s.helmArgs(version)+" --wait --timeout 5m")
			s.awaitImage(version)
			s.settled()
			s.told("managers and all servers run %s after %s", version, ago(began))
		})
		s.run(cluster.Central, "kubectl wait --for=condition=Ready datacenters --all --timeout=2m")
		out := s.quiet(cluster.Central, "kubectl get events -A --field-selector type=Warning -o jsonpath='{range .items[*]}{.reason}: {.message}{\"\\n\"}{end}' | grep -i corrupt || true")
		if out != "" {
			s.Errorf("a disk copy was refused: %s", out)
		}
	}
}

// killServer kills a server's process, as the kernel does when memory is short.
func (s *story) killServer() {
	pod := s.quiet(cluster.Central, "kubectl get pods -n "+namespace+" -l fingerpost.dev/datacenter=dc-a,fingerpost.dev/group=authoritative -o jsonpath='{.items[0].metadata.name}'")
	id := s.quiet(cluster.Central, "kubectl get pod -n "+namespace+" "+pod+" -o jsonpath='{.status.containerStatuses[0].containerID}'")
	sum := s.watched(everything(datacenters...), func() {
		began := time.Now()
		fmt.Printf("  $ ctr tasks kill --signal SIGKILL %s # on the node of dc-a: pod %s\n", strings.TrimPrefix(id, "containerd://"), pod)
		cmd, err := s.Exec(s.Context(), "dc-a", "ctr", "tasks", "kill", "--signal", "SIGKILL", strings.TrimPrefix(id, "containerd://"))
		if err != nil {
			s.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			s.Fatalf("killing %s: %v\n%s", pod, err, out)
		}
		s.until(time.Minute, "the server was started again", func() bool {
			out, err := s.try(cluster.Central, "kubectl get pod -n "+namespace+" "+pod+" -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.conditions[?(@.type==\"Ready\")].status}'")
			return err == nil && out != "0 True" && strings.HasSuffix(out, " True")
		})
		s.told("it is ready again after %s", ago(began))
	})
	if elsewhere := len(everything("dc-b", remote)); sum.failed > 0 {
		for _, line := range sum.log {
			if strings.Contains(line, "again") && !strings.HasPrefix(line, "dc-a authoritative") {
				s.Errorf("a question that has nothing to do with it (of %d) failed: %s", elsewhere, line)
			}
		}
	}
}

func (s *story) loseManagers() {
	s.undisturbed(append(everything(datacenters...), resolved(datacenters...)...), func() {
		s.run(cluster.Central, "kubectl scale deployment fingerpost-manager -n "+namespace+" --replicas=0")
		s.run(cluster.Central, "kubectl wait --for=delete pods -n "+namespace+" -l app.kubernetes.io/name=fingerpost-manager --timeout=1m")
		pause := time.NewTimer(time.Minute)
		<-pause.C
		s.run(cluster.Central, "kubectl scale deployment fingerpost-manager -n "+namespace+" --replicas=2")
		s.run(cluster.Central, "kubectl rollout status deployment fingerpost-manager -n "+namespace+" --timeout=2m")
	})
	began := time.Now()
	s.run(cluster.Central, "kubectl get dnszone corp -n dns-corp -o json | sed s/10.1.0.123/10.1.0.124/ | kubectl apply -f -")
	var changed []question
	for i, dc := range datacenters {
		changed = append(changed, question{about: dc, from: "wan", server: cluster.ServiceAddress(i+1, 2), name: "ntp.corp", rrtype: dns.TypeA, want: "10.1.0.124"})
	}
	s.allAnswered(time.Minute, changed...)
	s.told("a change is at all servers %s after it was applied", ago(began))
}

// inside asks the servers of a datacenter from its own node, which a partition cuts off with them.
func inside(dc string) []question {
	all := everything(dc)
	for i := range all {
		all[i].about, all[i].from, all[i].client = all[i].about+", from inside", dc, question{}.client
	}
	return all
}

func (s *story) partition() {
	elsewhere := everything("dc-a", remote)
	s.undisturbed(append(elsewhere, inside("dc-b")...), func() {
		began := time.Now()
		fmt.Println("  $ cluster partition dc-b")
		if err := s.Partition("dc-b"); err != nil {
			s.Fatal(err)
		}
		s.allAnswered(time.Minute, portal("dc-b", "dc-a", node("dc-a")))
		s.told("clients of dc-b that reach dc-a get %s there instead of dc-b's after %s", node("dc-a"), ago(began))
		s.until(2*time.Minute, "dc-b shows as degraded", func() bool {
			out, err := s.try(cluster.Central, "kubectl get datacenter dc-b -o jsonpath='{.status.conditions[?(@.type==\"Degraded\")].status}'")
			return err == nil && out == "True"
		})
		s.told("its condition Degraded is True after %s", ago(began))
	})
	healed := time.Now()
	fmt.Println("  $ cluster heal dc-b")
	if err := s.Heal("dc-b"); err != nil {
		s.Fatal(err)
	}
	s.allAnswered(time.Minute, append(everything("dc-b"), portal("dc-b", "dc-b", node("dc-b")))...)
	s.told("dc-b answers everybody, and with its own address, %s after the link is back", ago(healed))
	s.run(cluster.Central, "kubectl wait --for=condition=Degraded=False datacenter/dc-b --timeout=2m")
	s.told("all its servers are in sync %s after the link is back", ago(healed))
}

func (s *story) killNode() {
	s.undisturbed(everything("dc-a", remote), func() {
		began := time.Now()
		fmt.Println("  $ cluster kill-node dc-b")
		if err := s.Kill("dc-b"); err != nil {
			s.Fatal(err)
		}
		s.allAnswered(time.Minute, portal("dc-b", "dc-a", node("dc-a")))
		s.told("clients of dc-b get %s at dc-a after %s", node("dc-a"), ago(began))
		s.run(cluster.Central, "kubectl wait --for=condition=Ready=Unknown node/dc-b --timeout=2m")
	})
	began := time.Now()
	fmt.Println("  $ cluster start-node dc-b")
	if err := s.Start(s.Context(), "dc-b"); err != nil {
		s.Fatal(err)
	}
	s.allAnswered(3*time.Minute, append(everything("dc-b"), portal("dc-b", "dc-b", node("dc-b")))...)
	s.told("dc-b answers everybody, and with its own address, %s after its node is started", ago(began))
	s.run(cluster.Central, "kubectl wait --for=condition=Ready datacenters --all --timeout=3m")
}

func (s *story) deleteDatacenters() {
	s.undisturbed(everything("dc-a", "dc-b"), func() {
		s.run(cluster.Central, "kubectl delete datacenter dc-c --timeout=3m")
		took := s.until(2*time.Minute, "nothing of it is in its cluster", func() bool {
			out, err := s.try(remote, "kubectl get statefulsets,services,pods,poddisruptionbudgets,networkpolicies,secrets,serviceaccounts -n "+remoteNamespace+" -l app.kubernetes.io/managed-by=fingerpost -o name")
			return err == nil && out == ""
		})
		s.told("its servers and all they had are gone from its cluster after %.1f s", took.Seconds())
	})
	s.run(cluster.Central, "kubectl delete datacenters --all --timeout=3m")
	took := s.until(2*time.Minute, "no server runs", func() bool {
		out, err := s.try(cluster.Central, "kubectl get statefulsets,pods -n "+namespace+" -l app.kubernetes.io/managed-by=fingerpost -o name")
		return err == nil && out == ""
	})
	s.told("the other datacenters' servers are gone after %.1f s", took.Seconds())
}

// uninstall removes the release and what the story has made, and compares what there is with what was before.
func (s *story) uninstall(before map[string][]string) {
	s.run(cluster.Central, "helm4 uninstall fingerpost -n "+namespace+" --wait --timeout 2m")
	kept := s.run(cluster.Central, "kubectl get dnszones,dynamicrecords,healthprobes -A -o name")
	if !strings.Contains(kept, "dnszone.fingerpost.dev/pay") {
		s.Errorf("zones are gone with the release: %q", kept)
	}
	s.run(cluster.Central, "kubectl delete namespace "+namespace+" --timeout=2m")
	s.run(remote, "kubectl delete -f config/rbac/remote/ --ignore-not-found --timeout=2m")
	for _, in := range []string{cluster.Central, remote} {
		var left []string
		for _, object := range s.objects(in) {
			if !slices.Contains(before[in], object) {
				left = append(left, object)
			}
		}
		left = slices.DeleteFunc(left, func(object string) bool {
			return in == cluster.Central && (strings.Contains(object, "fingerpost.dev ") || strings.HasPrefix(object, "customresourcedefinitions.apiextensions.k8s.io ") && strings.HasSuffix(object, ".fingerpost.dev") || madeBySamples(object))
		})
		if len(left) > 0 {
			s.Errorf("left in %s:\n%s", in, strings.Join(left, "\n"))
		}
		s.told("nothing else is left in %s (%d objects)", in, len(s.objects(in)))
	}
}

// madeBySamples are the namespaces of teams, and what Kubernetes makes in each.
func madeBySamples(object string) bool {
	for _, ns := range []string{"dns-root", "dns-corp", "payments", "cards"} {
		if object == "namespaces "+ns || object == "serviceaccounts "+ns+"/default" || object == "configmaps "+ns+"/kube-root-ca.crt" {
			return true
		}
	}
	return false
}

// objects returns all objects of a cluster as "KIND NAMESPACE/NAME", but for what comes and goes by itself.
func (s *story) objects(in string) []string {
	s.Helper()
	kinds := s.quiet(in, "kubectl api-resources --verbs=list,delete -o name")
	var all []string
	for kind := range strings.FieldsSeq(kinds) {
		switch kind {
		case "events", "events.events.k8s.io", "leases.coordination.k8s.io", "pods", "controllerrevisions.apps", "apiservices.apiregistration.k8s.io":
			continue
		}
		out := s.quiet(in, "kubectl get "+kind+` -A --ignore-not-found -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}'`)
		for name := range strings.FieldsSeq(out) {
			all = append(all, kind+" "+strings.TrimPrefix(name, "/"))
		}
	}
	return all
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }
