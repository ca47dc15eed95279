//go:build linux

package health_test

import (
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

var (
	processRuns = flag.Int("process-runs", 2, "random sequences with real servers; with many, -parallel says how many at a time")
	processSeed = flag.Uint64("process-seed", 1, "of the first of them; the others follow")
	processPace = flag.Int("process-pace", 8, "how many times faster than with simulated servers the events of these follow each other")
)

// TestRealServersAreAnsweredAsTheModelAllows plays random sequences with dnsservers that are processes: they are killed,
// stopped (SIGSTOP) and started again, links between datacenters are cut, targets die, and the hub does. What they answer by
// UDP is judged by the same model as simulated servers.
//
// Links are TCP proxies in this process, one for each server as seen from each other datacenter; what is cut is not passed on,
// and nobody is told. The hub is package control's, in this process: there is no API server. Targets know by the process that
// asks whether its datacenter reaches theirs.
func TestRealServersAreAnsweredAsTheModelAllows(t *testing.T) {
	program := filepath.Join(t.TempDir(), "dnsserver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/dnsserver").CombinedOutput(); err != nil {
		t.Fatalf("building dnsserver: %v\n%s", err, out)
	}
	for n := range *processRuns {
		s := *processSeed + uint64(n)
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			playReal(t, mathrand.New(mathrand.NewPCG(s, 1)), program, n)
		})
	}
}

// disasters are partitions and killings in turn: what the simulated runs have apart.
func disasters(rng *mathrand.Rand, d *drama) {
	pick := func() (string, string) {
		i := rng.IntN(len(d.w.dcs))
		j := (i + 1 + rng.IntN(len(d.w.dcs)-1)) % len(d.w.dcs)
		return d.w.dcs[i].name, d.w.dcs[j].name
	}
	for range 4 + rng.IntN(4) {
		s := d.w.servers[rng.IntN(len(d.w.servers))]
		a, b := pick()
		switch rng.IntN(12) {
		case 0, 1:
			d.do("target " + letter(d.w.dcs[rng.IntN(2)].name) + either(rng.IntN(3) > 0, " dies", " returns"))
		case 2, 3:
			if !s.site.dead {
				d.do(s.id.Name + " restarts")
			}
		case 4, 5:
			d.pause(s, !s.paused)
		case 6:
			if !s.site.dead {
				d.do(s.site.name + " goes silent")
			}
		case 7:
			if s.site.dead {
				d.do(s.site.name + " returns")
			}
		case 8:
			d.do(either(d.w.hubDead, "hub returns", "hub dies"))
		case 9:
			d.do(fmt.Sprintf("link %s - %s is cut", a, b))
		case 10:
			d.do(fmt.Sprintf("packets %s -> %s are lost", a, b))
		default:
			d.person(rng.IntN(3))
		}
		d.wait(time.Duration(1+rng.IntN(40)) * time.Second)
	}
	d.heal()
}

func playReal(t *testing.T, rng *mathrand.Rand, program string, n int) {
	t.Helper()
	estates := [][]string{{"dc-a", "dc-b"}, {"dc-a", "dc-b", "dc-w"}, {"dc-a", "dc-b", "dc-c"}}
	names := estates[rng.IntN(len(estates))]
	topo := estate(1+rng.IntN(2), false, names...)
	topo.VoteTtl = 1500
	hubAt := names[rng.IntN(2)]
	p := newProcesses(t, program, n, topo)
	var records []*steeringpb.Record
	probe := &steeringpb.Probe{
		Source: "test/http", Interval: 500, Timeout: 400, FailureThreshold: 2, SuccessThreshold: 2,
		Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Port: targetPort, Path: "/"}},
	}
	for i, r := range storyRecords(topo) {
		r.Probes, r.Host = []*steeringpb.Probe{probe}, columns[i].name+".example."
		if columns[i].delay > 0 {
			r.FailbackDelay = 3000
		}
		for _, pool := range r.GetPools() {
			pool.Targets[0].Address = p.target(pool.GetDatacenter()).String()
		}
		records = append(records, r)
	}
	w := p.world(records, hubAt)
	m := newModel(w, modelTimes{
		fallsFrom: 300 * time.Millisecond, falls: 5 * time.Second, risesFrom: 300 * time.Millisecond, rises: 9 * time.Second, first: 4 * time.Second,
		contact: 8 * time.Second, silenceFrom: time.Second, silence: 6 * time.Second, oneWay: 9 * time.Second,
		isolation: 5 * time.Second, reach: 2 * time.Second, young: 9 * time.Second, save: 3 * time.Second, slack: 3 * time.Second, answers: 9 * time.Second,
	})
	(&drama{w: w, m: m, pace: *processPace}).play(rng, disasters)
}

// Ports, each at addresses of its own.
const (
	targetPort = 8000
	dnsPort    = 5300
	peerPort   = 8054
	hubPort    = 8443
)

// processes are real servers with what is around them.
type processes struct {
	t       *testing.T
	program string
	net     [3]byte // of all addresses
	topo    *steeringpb.Topology
	w       *world
	began   time.Time
	ca      *controltest.Authority
	certs   map[string]string // folders, by datacenter
	servers map[*server]*realServer
	hub     *control.Hub

	mu      sync.Mutex
	cut     map[[2]string]time.Time // from one datacenter to another: since when nothing passes
	changed chan struct{}           // closed when cut changes, and replaced
	pids    map[int]string          // datacenters of processes
	dead    map[netip.Addr]bool     // targets
	sites   map[netip.Addr]string   // of targets
}

type realServer struct {
	proc  *process.Process
	args  []string
	log   string
	addr  netip.Addr
	state string
}

func newProcesses(t *testing.T, program string, n int, topo *steeringpb.Topology) *processes {
	t.Helper()
	pid := os.Getpid()
	p := &processes{
		t: t, program: program, net: [3]byte{127, byte(64 + pid%64), byte(pid/64%8*32 + n%32)}, topo: topo, began: time.Now(),
		certs: map[string]string{}, servers: map[*server]*realServer{}, cut: map[[2]string]time.Time{}, changed: make(chan struct{}),
		pids: map[int]string{}, dead: map[netip.Addr]bool{}, sites: map[netip.Addr]string{},
	}
	p.ca = controltest.NewAuthority(p.t)
	return p
}

func (p *processes) addr(last int) netip.Addr {
	return netip.AddrFrom4([4]byte{p.net[0], p.net[1], p.net[2], byte(last)})
}

func (p *processes) site(name string) int {
	for i, d := range p.topo.GetDatacenters() {
		if d.GetName() == name {
			return i
		}
	}
	p.t.Fatalf("there is no datacenter %q", name)
	return 0
}

// Addresses: servers from 10 on, clients near a datacenter, its target, what its servers reach others by, and the hub.
func (p *processes) client(dc string) netip.Addr  { return p.addr(40 + p.site(dc)) }
func (p *processes) target(dc string) netip.Addr  { return p.addr(50 + p.site(dc)) }
func (p *processes) hubFrom(dc string) netip.Addr { return p.addr(60 + p.site(dc)) }
func (p *processes) peerFrom(dc string, server int) netip.Addr {
	return p.addr(100 + 10*p.site(dc) + server)
}

const hubAddress = 70

// world starts everything and returns what the model looks at.
func (p *processes) world(records []*steeringpb.Record, hubAt string) *world {
	p.t.Helper()
	w := &world{t: p.t, now: epoch, targets: map[string]*aim{}, lost: map[[2]string]time.Time{}, anchor: map[[2]string]bool{}, topo: p.topo, real: p, hubAt: hubAt}
	p.w = w
	var nodes []zone.Node
	const apex = zone.Name("\x07example\x00")
	soa := zone.SOA{MName: apex, RName: apex, Minimum: 60}
	nodes = append(nodes, zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 60, soa.Pack())))
	for _, r := range records {
		rdata, err := proto.Marshal(r)
		if err != nil {
			p.t.Fatal(err)
		}
		owner, err := zone.ParseName(r.GetHost(), "")
		if err != nil {
			p.t.Fatal(err)
		}
		decoded, err := steering.Decode(owner, string(rdata))
		if err != nil {
			p.t.Fatal(err)
		}
		w.records, w.pbs = append(w.records, decoded), append(w.pbs, r)
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeSteered, 60, rdata)))
		for _, pool := range r.GetPools() {
			w.targets[pool.GetTargets()[0].GetAddress()] = &aim{dc: pool.GetDatacenter()}
		}
	}
	for i, d := range p.topo.GetDatacenters() {
		d.Networks = []string{p.client(d.GetName()).String() + "/32"}
		s := &site{name: d.GetName(), witness: d.GetWitness()}
		w.dcs = append(w.dcs, s)
		p.sites[p.target(d.GetName())] = d.GetName()
		p.serveTarget(p.target(d.GetName()))
		for k, pb := range d.GetServers() {
			srv := &server{
				w: w, id: health.ServerID{Datacenter: d.GetName(), Group: pb.GetGroup(), Name: pb.GetName()}, site: s, alive: true,
				disk: map[string][]byte{"it": nil}, // nothing is lost
			}
			w.servers = append(w.servers, srv)
			p.servers[srv] = &realServer{addr: p.addr(10 + 10*i + k), state: p.t.TempDir()}
		}
		p.certs[d.GetName()] = p.ca.Dir(control.GroupKey{Datacenter: d.GetName(), Group: "dns"})
	}
	content, err := zone.NewContent(apex, nodes)
	if err != nil {
		p.t.Fatal(err)
	}
	p.startHub(content)
	for _, from := range p.topo.GetDatacenters() {
		p.pass(p.hubFrom(from.GetName()), p.addr(hubAddress), hubPort, func() [2]string { return [2]string{from.GetName(), "hub"} })
		for k, s := range w.servers {
			if s.id.Datacenter != from.GetName() {
				p.pass(p.peerFrom(from.GetName(), k), p.servers[s].addr, peerPort, func() [2]string { return [2]string{from.GetName(), s.id.Datacenter} })
			}
		}
	}
	for k, s := range w.servers {
		rs := p.servers[s]
		rs.log = filepath.Join(p.t.TempDir(), s.id.Name+".log")
		rs.args = []string{
			"--name", s.id.Name, "--listen", fmt.Sprintf("%s:%d", rs.addr, dnsPort), "--http-listen", "", "--threads", "1",
			"--tls-dir", p.certs[s.id.Datacenter], "--state-dir", rs.state, "--peer-listen", fmt.Sprintf("%s:%d", rs.addr, peerPort),
			"--hub", fmt.Sprintf("%s:%d", p.hubFrom(s.id.Datacenter), hubPort),
		}
		for j, o := range w.servers {
			if j != k && o.site == s.site {
				rs.args = append(rs.args, "--sibling", fmt.Sprintf("%s:%d", p.servers[o].addr, peerPort))
			}
		}
		p.start(s)
	}
	p.t.Cleanup(func() {
		for s := range p.servers {
			p.kill(s)
		}
	})
	return w
}

// wait lets time pass.
func (p *processes) wait(length time.Duration, look func()) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(length); time.Now().Before(until); {
		<-tick.C
		p.w.now = epoch.Add(time.Since(p.began))
		look()
	}
}

// do makes happen what a simulated world knows too.
func (p *processes) do(text string) error {
	w := p.w
	p.w.now = epoch.Add(time.Since(p.began))
	words := strings.Fields(text)
	switch {
	case strings.HasSuffix(text, " restarts"):
		s := w.server(words[0])
		p.kill(s)
		s.alive, s.paused = false, false
		p.w.now = epoch.Add(time.Since(p.began))
		p.start(s)
		s.alive = true
		return nil
	case strings.HasSuffix(text, " goes silent"):
		w.site(words[0]).dead = true
		for _, s := range w.servers {
			if s.site.name == words[0] {
				p.kill(s)
				s.alive, s.paused = false, false
			}
		}
		w.hubDead = w.hubDead || w.hubAt == words[0]
	case strings.HasPrefix(text, "dc-") && len(words) == 2 && words[1] == "returns":
		w.site(words[0]).dead = false
		for _, s := range w.servers {
			if s.site.name == words[0] && !s.alive {
				p.start(s)
				s.alive = true
			}
		}
		w.hubDead = w.hubDead && w.hubAt != words[0]
	case words[0] == "a" && words[1] == "person" || words[0] == "the" && words[1] == "override":
		return p.person(words)
	default:
		if err := w.do(text); err != nil {
			return err
		}
	}
	p.links()
	return nil
}

// links brings what passes in line with the world.
func (p *processes) links() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	set := func(from, to string, passes bool) {
		key := [2]string{from, to}
		if _, cut := p.cut[key]; passes {
			delete(p.cut, key)
		} else if !cut {
			p.cut[key] = now
		}
	}
	for _, a := range p.w.dcs {
		for _, b := range p.w.dcs {
			set(a.name, b.name, p.w.passes(a.name, b.name))
		}
		set(a.name, "hub", !p.w.hubDead && p.w.passes(a.name, p.w.hubAt))
		set("hub", a.name, !p.w.hubDead && p.w.passes(p.w.hubAt, a.name))
	}
	for _, aim := range p.w.targets {
		p.dead[p.target(aim.dc)] = aim.dead
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// passes reports since when packets do not pass; zero: they do. changed is closed when that may be otherwise.
func (p *processes) passes(from, to string) (cut time.Time, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut[[2]string{from, to}], p.changed
}

func (p *processes) person(words []string) error {
	o := &steeringpb.Override{
		Source: "test/o", Records: []string{"test/by-hand", "test/by-hand-hold"},
		Created: uint64(time.Now().UnixMilli()), Expires: uint64(time.Now().Add(24 * time.Hour).UnixMilli()),
	}
	all := &steeringpb.Overrides{Overrides: []*steeringpb.Override{o}}
	switch words[2] {
	case "forces":
		o.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{Pool: words[3]}}
	case "fails":
		o.Action = &steeringpb.Override_Failback{Failback: &steeringpb.Failback{}}
	default:
		all.Overrides = nil
	}
	return p.publish("overrides", func(string) proto.Message { return all })
}

func (p *processes) publish(kind string, message func(dc string) proto.Message) error {
	for _, d := range p.topo.GetDatacenters() {
		body, err := proto.Marshal(message(d.GetName()))
		if err != nil {
			return err
		}
		if err := p.hub.PublishDocument(control.GroupKey{Datacenter: d.GetName(), Group: "dns"}, control.Document{Kind: kind, Body: body}); err != nil {
			return err
		}
	}
	return nil
}

// --- servers ---

func (p *processes) start(s *server) {
	p.t.Helper()
	rs := p.servers[s]
	proc, err := process.Start(process.Options{Name: s.id.Name, Log: rs.log, Env: []string{"HOME=" + rs.state}}, p.program, rs.args...)
	if err != nil {
		p.t.Fatal(err)
	}
	rs.proc = proc
	p.mu.Lock()
	p.pids[proc.PID()] = s.id.Datacenter
	p.mu.Unlock()
}

func (p *processes) kill(s *server) {
	rs := p.servers[s]
	if rs.proc == nil {
		return
	}
	p.mu.Lock()
	delete(p.pids, rs.proc.PID())
	p.mu.Unlock()
	if err := rs.proc.Stop(0); err != nil {
		p.t.Error(err)
	}
	rs.proc = nil
	if p.t.Failed() {
		if text, err := os.ReadFile(rs.log); err == nil {
			p.t.Logf("log of %s:\n%s", s.id.Name, text)
		}
	}
}

// pause has a server stand still, or go on.
func (p *processes) pause(s *server, still bool) {
	p.w.now = epoch.Add(time.Since(p.began))
	if err := syscall.Kill(p.servers[s].proc.PID(), either(still, syscall.SIGSTOP, syscall.SIGCONT)); err != nil {
		p.t.Fatal(err)
	}
	s.paused, s.still = still, p.w.now
}

// ask is what a client near a datacenter is answered: the letter of a pool; "?" is a failure, "-" is no answer.
func (p *processes) ask(s *server, r *steering.Record, near string) string {
	rs := p.servers[s]
	if rs.proc == nil || s.paused {
		return "-"
	}
	c := dns.Client{Timeout: 500 * time.Millisecond, Dialer: &net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.client(near), 0))}}
	reply, _, err := c.Exchange(new(dns.Msg).SetQuestion(r.Owner.String(), dns.TypeA), fmt.Sprintf("%s:%d", rs.addr, dnsPort))
	switch {
	case err != nil: // the machine may be busy
		return "-"
	case reply.Rcode != dns.RcodeSuccess:
		return "?"
	}
	for _, rr := range reply.Answer {
		if a, is := rr.(*dns.A); is {
			address, _ := netip.AddrFromSlice(a.A.To4())
			return letter(p.sites[address])
		}
	}
	return "nothing"
}

// accept has each connection to an address served until the test ends.
func (p *processes) accept(at netip.AddrPort, serve func(net.Conn)) {
	p.t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

// --- links ---

// pass is a link to a server: what is cut stays where it is, and if that lasts the connection is lost with it.
func (p *processes) pass(from, to netip.Addr, port uint16, ends func() [2]string) {
	p.t.Helper()
	p.accept(netip.AddrPortFrom(from, port), func(conn net.Conn) { p.link(conn, to, port, ends()) })
}

// lostAfter is how long a connection waits for a link that is cut.
const lostAfter = 2 * time.Second

func (p *processes) link(near net.Conn, to netip.Addr, port uint16, ends [2]string) {
	defer near.Close()
	if !p.until(ends[0], ends[1]) {
		return
	}
	far, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	ended := make(chan struct{}, 2)
	pump := func(from, to net.Conn, a, b string) {
		defer func() { ended <- struct{}{} }()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if !p.until(a, b) {
				return
			}
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go pump(near, far, ends[0], ends[1])
	go pump(far, near, ends[1], ends[0])
	<-ended
}

// until waits as long as packets do not pass. It reports whether the connection lives.
func (p *processes) until(from, to string) bool {
	for {
		cut, changed := p.passes(from, to)
		if cut.IsZero() {
			return true
		}
		select {
		case <-changed:
			if again, _ := p.passes(from, to); again.IsZero() && time.Since(cut) > lostAfter {
				return false
			}
		case <-p.t.Context().Done():
			return false
		}
	}
}

// --- targets ---

func (p *processes) serveTarget(at netip.Addr) {
	p.t.Helper()
	p.accept(netip.AddrPortFrom(at, targetPort), func(conn net.Conn) { p.answerProbe(conn, at) })
}

func (p *processes) answerProbe(conn net.Conn, at netip.Addr) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	p.mu.Lock()
	var all []int
	for pid := range p.pids {
		all = append(all, pid)
	}
	p.mu.Unlock()
	pid, err := process.Peer(conn, all)
	p.mu.Lock()
	from, to := p.pids[pid], p.sites[at]
	_, there := p.cut[[2]string{from, to}]
	_, back := p.cut[[2]string{to, from}]
	dead := p.dead[at]
	p.mu.Unlock()
	if err != nil || from == "" || there || back {
		_, _ = io.Copy(io.Discard, conn) // it gives up
		return
	}
	buffer := make([]byte, 4096)
	if _, err := conn.Read(buffer); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 "+either(dead, "503 Service Unavailable", "200 OK")+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// --- the hub ---

func (p *processes) startHub(content *zone.Content) {
	p.t.Helper()
	p.hub = control.NewHub(control.HubOptions{Log: logr.Discard(), Cluster: "test", OnZone: func(zone.Name) {}, OnServer: func(control.ServerID) {}})
	srv := grpc.NewServer(control.ServerOptions(p.ca.Credentials(control.HubURI()))...)
	p.hub.Register(srv)
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", p.addr(hubAddress), hubPort))
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }() // until Stop
	p.t.Cleanup(srv.Stop)
	var groups []control.GroupKey
	for _, d := range p.topo.GetDatacenters() {
		groups = append(groups, control.GroupKey{Datacenter: d.GetName(), Group: "dns"})
	}
	p.hub.Lead(1)
	p.hub.Publish(control.Zone{
		Content: content, Version: zone.Version{Serial: 1, Digest: content.Digest()}, Source: "test/example", Groups: groups,
		Guard: zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30},
	})
	// Servers of each datacenter reach those of others by links of their own.
	if err := p.publish("topology", func(dc string) proto.Message {
		t := proto.CloneOf(p.topo)
		k := 0
		for _, d := range t.GetDatacenters() {
			d.DeniedNetworks, d.DefaultDenied = nil, false
			for _, s := range d.GetServers() {
				at := p.servers[p.w.servers[k]].addr
				if d.GetName() != dc {
					at = p.peerFrom(dc, k)
				}
				s.Mesh = at.String() + ":" + strconv.Itoa(peerPort)
				k++
			}
		}
		return t
	}); err != nil {
		p.t.Fatal(err)
	}
	if err := p.publish("overrides", func(string) proto.Message { return &steeringpb.Overrides{} }); err != nil {
		p.t.Fatal(err)
	}
	p.hub.SetComplete()
}
