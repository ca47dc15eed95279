//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
	"github.com/go-logr/logr"
)

// serveJob is what our server is told when it runs as a part of this program: with zones from files, steered names
// that no hub has to compile, and changes that nobody has to send.
type serveJob struct {
	Address string     `json:"address"`
	Zones   []zoneFile `json:"zones"`
	Steered bool       `json:"steered"`
	Control string     `json:"control"` // path of a socket that takes commands
}

// Commands of the control socket, one a line; each is answered by a line.
const (
	changeRecords = "change records"       // begin to change updateRate A records a second
	changeSteered = "change steered names" // begin to change the answers of updateRate steered names a second
	changeStop    = "stop"                 // end that; the answer is a changeReport
)

// updateRate is how many names change in a second.
const updateRate = 50_000

// changeReport is what was changed.
type changeReport struct {
	Changes int           `json:"changes"`
	Elapsed time.Duration `json:"elapsed"`
}

// serving is our server.
type serving struct {
	view  *zone.View
	hosts []zone.Name // that may change
	// steered are two answers for each steered name.
	steered [][2]*zone.Steered
}

// serve runs our server until the process ends.
func serve(text string) error {
	var job serveJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0)) // as cmd/dnsserver does
	s := &serving{view: &zone.View{}}
	if err := s.load(job); err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(job.Address)
	if err != nil {
		return err
	}
	server, err := dnsserver.Listen(dnsserver.Options{Addresses: []netip.AddrPort{address}, View: s.view, Log: logr.Discard(), Workers: 1})
	if err != nil {
		return err
	}
	control, err := net.Listen("unix", job.Control)
	if err != nil {
		return err
	}
	defer control.Close()
	go s.obey(control)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return server.Serve(ctx)
}

func (s *serving) load(job serveJob) error {
	var served []*zone.Served
	add := func(apex zone.Name, text string, extra ...zone.Node) error {
		content, version, faults := zone.LoadParallel(apex, text, runtime.GOMAXPROCS(0))
		if len(faults) > 0 {
			return fmt.Errorf("zone %s: %w", apex, faults[0])
		}
		var err error
		content, err = content.With(extra...)
		if err != nil {
			return err
		}
		version.Digest = content.Digest()
		z, err := zone.NewServed(content, version)
		if err != nil {
			return err
		}
		served = append(served, z)
		return nil
	}
	for _, z := range job.Zones {
		text, err := os.ReadFile(z.Path)
		if err != nil {
			return err
		}
		apex, err := zone.ParseName(z.Apex, "")
		if err != nil {
			return err
		}
		if err := add(apex, string(text)); err != nil {
			return err
		}
		for n := range served[0].Content().All() {
			if len(n.RRsets) == 1 && n.Has(zone.TypeA) && len(s.hosts) < 50_000 {
				s.hosts = append(s.hosts, n.Owner)
			}
		}
	}
	if !job.Steered {
		s.view.Update(served, nil)
		return nil
	}
	apex, err := zone.ParseName(workload.SteeredApex, "")
	if err != nil {
		return err
	}
	var nodes []zone.Node
	for i := range workload.SteeredNames {
		owner, err := zone.ParseName(workload.SteeredName(i), "")
		if err != nil {
			return err
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeSteered, 30, []byte{byte(i)})))
	}
	if err := add(apex, workload.SteeredZone, nodes...); err != nil {
		return err
	}
	s.view.Update(served, nil)
	return s.steer(apex)
}

// steer gives the steered names their answers: an address for each datacenter, or another one.
func (s *serving) steer(apex zone.Name) error {
	var places []zone.Place
	for _, n := range workload.Networks() {
		places = append(places, zone.Place{Network: n.Prefix, Location: uint16(1 + n.Datacenter)})
	}
	where, err := zone.NewLocator(1+workload.Datacenters, places, zone.Longest)
	if err != nil {
		return err
	}
	by, err := zone.NewDimensions(zone.Dimension{Where: where, Count: 1 + workload.Datacenters})
	if err != nil {
		return err
	}
	answers := func(seed uint64, other bool) (*zone.Steered, error) {
		a := &zone.Answers{Seed: seed, TTL: 30, Slot: 30, Types: []uint16{zone.TypeA, zone.TypeAAAA}, By: by}
		for location := range 1 + workload.Datacenters {
			address := workload.SteeredAddress(max(location-1, 0)).As4()
			if other {
				address[2]++
			}
			a.Cells = append(a.Cells, location)
			a.Choices = append(a.Choices, zone.Choice{Of: []zone.Alternative{{Outcome: location}}})
			a.Outcomes = append(a.Outcomes, zone.Outcome{Sets: []zone.Set{{Type: zone.TypeA, TTL: 30, RData: [][]byte{address[:]}}}})
		}
		return zone.NewSteered(a)
	}
	for i := range workload.SteeredNames {
		owner, err := zone.ParseName(workload.SteeredName(i), "")
		if err != nil {
			return err
		}
		one, err := answers(uint64(i), false)
		if err != nil {
			return err
		}
		other, err := answers(uint64(i), true)
		if err != nil {
			return err
		}
		s.steered = append(s.steered, [2]*zone.Steered{one, other})
		if !s.view.SetSteered(apex, owner, one) {
			return fmt.Errorf("%s is not steered", owner)
		}
	}
	everybody := zone.NewNetworks([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
	if !s.view.TrustSubnets(apex, everybody) {
		return errors.New("the steered zone is not there")
	}
	return nil
}

// obey takes commands, from one connection at a time.
func (s *serving) obey(control net.Listener) {
	var stop chan struct{}
	var done chan changeReport
	for {
		conn, err := control.Accept()
		if err != nil {
			return
		}
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			switch command := lines.Text(); command {
			case changeRecords, changeSteered:
				stop, done = make(chan struct{}), make(chan changeReport, 1)
				change := s.changeRecords
				if command == changeSteered {
					change = s.changeSteered
				}
				go func(stop chan struct{}, done chan changeReport) { done <- keepChanging(stop, change) }(stop, done)
				fmt.Fprintln(conn, "{}")
			case changeStop:
				close(stop)
				text, _ := json.Marshal(<-done) // numbers alone
				fmt.Fprintf(conn, "%s\n", text)
			}
		}
		conn.Close()
	}
}

// keepChanging calls change with the number of changes that are due, several hundred times a second, until stop is closed.
func keepChanging(stop chan struct{}, change func(n int)) changeReport {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var r changeReport
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			r.Elapsed = time.Since(began)
			return r
		case <-tick.C:
		}
		// What a busy machine kept from being done is done later, but not all at once.
		if due := min(int(time.Since(began).Seconds()*updateRate)-r.Changes, updateRate/100); due > 0 {
			change(due)
			r.Changes += due
		}
	}
}

// changeRecords gives names of the first zone other addresses, as one version of it.
func (s *serving) changeRecords(n int) {
	now := s.view.Zone(s.hosts[0].Parent())
	for apex := s.hosts[0]; now == nil; apex = apex.Parent() {
		now = s.view.Zone(apex)
	}
	nodes := make([]zone.Node, n)
	for i := range nodes {
		address := []byte{10, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
		nodes[i] = zone.NewNode(s.hosts[rand.IntN(len(s.hosts))], zone.NewRRset(zone.TypeA, 300, address))
	}
	content, err := now.Content().With(nodes...)
	if err != nil { // cannot be: the names are the zone's
		panic(err)
	}
	version := zone.Version{Serial: now.Version().Serial + 1, Digest: content.Digest()}
	next, err := zone.NewServed(content, version)
	if err != nil {
		panic(err)
	}
	s.view.Update([]*zone.Served{next}, nil)
}

// changeSteered gives steered names their other answer.
func (s *serving) changeSteered(n int) {
	apex, _ := zone.ParseName(workload.SteeredApex, "") // as in load
	for range n {
		i := rand.IntN(len(s.steered))
		owner, _ := zone.ParseName(workload.SteeredName(i), "")
		s.view.SetSteered(apex, owner, s.steered[i][rand.IntN(2)])
	}
}

// inner is our server as a part of this program.
func (b *bench) inner(f *field, steered bool) (*contestant, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	job := serveJob{Address: "{{.At}}", Zones: f.files, Steered: steered, Control: "{{.Dir}}/control"}
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	return f.start(b, contender{name: ours, program: self, answers: true, args: []string{serveArgument, string(text)}})
}

// command has our server do something, see changeRecords.
func (c *contestant) command(line string) (r changeReport, err error) {
	conn, err := net.Dial("unix", c.settings.Dir+"/control")
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return r, err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return r, err
	}
	err = json.Unmarshal([]byte(strings.TrimSpace(answer)), &r)
	return r, err
}
