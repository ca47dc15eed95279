package changes

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes/changespb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// patience is how long something may take that takes milliseconds on a quiet machine.
const patience = 30 * time.Second

var (
	servers   = control.GroupKey{Datacenter: "dc-a", Group: "authoritative"}
	resolvers = control.GroupKey{Datacenter: "dc-a", Group: "pool.dns.office"}
)

// authority makes certificates.
type authority struct {
	t *testing.T
	*controltest.Authority
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return &authority{t, controltest.NewAuthority(t)}
}

// serve has a server of changes listen. It may be stopped before the end of the test.
func (a *authority) serve(address string, g control.GroupKey, with changespb.ChangesServer) (at string, stop func()) {
	a.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	s := grpc.NewServer(control.ServerOptions(a.Credentials(g.URI()))...)
	changespb.RegisterChangesServer(s, with)
	ended := make(chan struct{})
	go func() { _ = s.Serve(listener); close(ended) }() // ends when it is stopped
	stop = sync.OnceFunc(func() { s.Stop(); <-ended })
	a.t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// service tells of a Log, in which www.bank. leads to app.bank.
func service(t *testing.T, l *Log) *Service {
	t.Helper()
	return NewService(l, func(n zone.Name) []zone.Name {
		if n == mustName(t, "app.bank.") {
			return []zone.Name{mustName(t, "www.bank.")}
		}
		return nil
	}, testr.New(t))
}

// watcher notes what it is told.
type watcher struct {
	t        *testing.T
	events   chan string
	received chan []Change
	block    sync.Mutex // OnChanges waits for it
}

// watch begins to watch, until the test ends.
func (a *authority) watch(o WatchOptions) *watcher {
	a.t.Helper()
	w := &watcher{t: a.t, events: make(chan string, 100), received: make(chan []Change, 100_000)}
	o.Name, o.Log = "agent", testr.New(a.t)
	if o.Credentials.Roots == nil {
		o.Credentials = a.Credentials(resolvers.URI())
	}
	o.OnConnected = func(server string, connected bool) { w.events <- fmt.Sprintf("%s %t", server, connected) }
	o.OnChanges = func(_ string, all []Change, missed bool) {
		w.block.Lock()
		defer w.block.Unlock()
		w.received <- all
		if missed {
			w.events <- "missed"
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { Watch(ctx, o); close(ended) }()
	a.t.Cleanup(func() { cancel(); <-ended })
	return w
}

func (w *watcher) expect(event string) {
	w.t.Helper()
	select {
	case got := <-w.events:
		if got != event {
			w.t.Fatalf("it happens that %q, wanted %q", got, event)
		}
	case <-time.After(patience):
		w.t.Fatalf("it does not happen that %q", event)
	}
}

// told waits until so many changes have come, and returns them and in how many parts they came.
func (w *watcher) told(count int) (all []Change, parts int) {
	w.t.Helper()
	limit := time.After(patience)
	for len(all) < count {
		select {
		case some := <-w.received:
			all = append(all, some...)
			parts++
		case <-limit:
			w.t.Fatalf("told of %d changes, wanted %d", len(all), count)
		}
	}
	return all, parts
}

func (w *watcher) says(want ...string) {
	w.t.Helper()
	all, _ := w.told(len(want))
	var got []string
	for i := range all {
		got = append(got, say(&all[i]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("told (-want +got):\n%s", diff)
	}
}

func put(t *testing.T, l *Log, texts ...string) {
	t.Helper()
	for _, text := range texts {
		c := understand(t, text)
		c.At = time.Now()
		l.Add(c)
	}
}

func TestWatch(t *testing.T) {
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a := newAuthority(t)
	l := NewLog()
	put(t, l, "app.bank. 1>2", "old.bank. #7")
	s := service(t, l)
	at, stop := a.serve("127.0.0.1:0", servers, s)
	w := a.watch(WatchOptions{Servers: []string{at}})

	all, _ := w.told(2)
	want := Change{
		Name: mustName(t, "app.bank."), Apex: mustName(t, "bank."), Aliases: []zone.Name{mustName(t, "www.bank.")},
		Before: []uint64{1}, After: 2, At: all[0].At,
	}
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Errorf("what had changed before (-want +got):\n%s", diff)
	}
	if age := time.Since(all[0].At); age < 0 || age > patience {
		t.Errorf("it changed %s ago", age)
	}
	if got := say(&all[1]); got != "old.bank. #7" {
		t.Errorf("what had changed before: %s", got)
	}
	w.expect(at + " true")
	if n := s.Watchers(); n != 1 {
		t.Errorf("%d watchers are counted", n)
	}
	put(t, l, "app.bank. 2>3")
	w.says("app.bank. 2>3")

	stop()
	w.expect(at + " false")
	put(t, l, "app.bank. 3>4", "sub.bank.* #8")
	_, stop = a.serve(at, servers, service(t, l))
	w.expect(at + " true")
	w.says("app.bank. 3>4", "sub.bank.* #8") // and nothing that was told before

	stop()
	w.expect(at + " false")
	l = NewLog() // of another process
	put(t, l, "app.bank. 4>5")
	a.serve(at, servers, service(t, l))
	w.expect(at + " true")
	w.says("app.bank. 4>5")
}

func TestAllServersThatANameStandsForAreWatched(t *testing.T) {
	a := newAuthority(t)
	one, two := NewLog(), NewLog()
	at, _ := a.serve("127.0.0.1:0", servers, service(t, one))
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	a.serve("127.0.0.2:"+port, control.GroupKey{Datacenter: "dc-b", Group: "other"}, service(t, two))
	asked := make(chan struct{}, 100)
	w := a.watch(WatchOptions{
		Servers: []string{"servers.test:" + port, "127.0.0.2:" + port}, // one of them twice
		Lookup: func(_ context.Context, host string) ([]string, error) {
			if host != "servers.test" {
				return []string{host}, nil
			}
			asked <- struct{}{}
			return []string{"127.0.0.1", "127.0.0.2"}, nil
		},
	})
	connected := []string{<-w.events, <-w.events}
	slices.Sort(connected)
	if diff := cmp.Diff([]string{"127.0.0.1:" + port + " true", "127.0.0.2:" + port + " true"}, connected); diff != "" {
		t.Errorf("connected (-want +got):\n%s", diff)
	}
	put(t, one, "app.bank. 1>2")
	w.says("app.bank. 1>2")
	put(t, two, "app.bank. 3>2")
	w.says("app.bank. 3>2")
	<-asked
}

func TestManyChangesAtOnceComeInFewMessages(t *testing.T) {
	a := newAuthority(t)
	l := NewLog()
	at, _ := a.serve("127.0.0.1:0", servers, service(t, l))
	w := a.watch(WatchOptions{Servers: []string{at}})
	w.expect(at + " true")
	const names = 10_000
	for i := range names { // as steering does
		l.Add(Change{Name: mustName(t, fmt.Sprintf("h%d.bank.", i)), Apex: mustName(t, "bank."), Before: []uint64{1}, After: 2, At: time.Now()})
	}
	all, parts := w.told(names)
	seen := map[zone.Name]bool{}
	for _, c := range all {
		seen[c.Name] = true
	}
	if len(seen) != names || parts > names/20 {
		t.Errorf("told of %d names in %d messages", len(seen), parts)
	}
}

// TestASlowWatcherGetsTheLastOfEachName: neither the server nor the connection keep what nobody takes.
func TestASlowWatcherGetsTheLastOfEachName(t *testing.T) {
	a := newAuthority(t)
	l := NewLog()
	at, _ := a.serve("127.0.0.1:0", servers, service(t, l))
	w := a.watch(WatchOptions{Servers: []string{at}})
	w.expect(at + " true")
	w.block.Lock()
	const rounds, names = 50, 2000
	for round := range rounds {
		for i := range names {
			l.Add(Change{
				Name: mustName(t, fmt.Sprintf("h%d.%s.bank.", i, strings.Repeat("x", 60))), Apex: mustName(t, "bank."),
				Before: []uint64{uint64(round + 1)}, After: uint64(round + 2), At: time.Now(),
			})
		}
	}
	w.block.Unlock()
	last := map[zone.Name]uint64{}
	count := 0
	for limit := time.After(patience); ; {
		select {
		case some := <-w.received:
			for _, c := range some {
				count++
				last[c.Name] = c.After
			}
		case <-limit:
			t.Fatalf("told of %d names", len(last))
		}
		done := len(last) == names
		for _, state := range last {
			done = done && state == rounds+1
		}
		if done {
			break
		}
	}
	if count > rounds*names/2 {
		t.Errorf("told of %d changes, which are nearly all of %d", count, rounds*names)
	}
}

func TestWhoIsNoneOfOursIsRefused(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	l := NewLog()
	put(t, l, "app.bank. 1>2")
	at, _ := a.serve("127.0.0.1:0", servers, service(t, l))
	impostor, _ := a.serve("127.0.0.1:0", resolvers, service(t, l))
	for sentence, w := range map[string]*watcher{
		"a watcher with a certificate of another authority": other.watch(WatchOptions{Servers: []string{at}}),
		"a server that is no authoritative server":          a.watch(WatchOptions{Servers: []string{impostor}}),
	} {
		select {
		case got := <-w.events:
			t.Errorf("%s: %s", sentence, got)
		case all := <-w.received:
			t.Errorf("%s: told %s", sentence, say(&all[0]))
		case <-time.After(500 * time.Millisecond): // a few attempts
		}
	}
}

func TestWatchersOfOneGroupLeaveRoomForOthers(t *testing.T) {
	a := newAuthority(t)
	l := NewLog()
	put(t, l, "app.bank. 1>2")
	s := service(t, l)
	for range maxOfGroup {
		if err := s.admit(control.GroupKey{Datacenter: "dc-b", Group: "pool.dns.stolen"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.admit(control.GroupKey{Datacenter: "dc-b", Group: "pool.dns.stolen"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more of a group that has its share is admitted: %v", err)
	}
	at, _ := a.serve("127.0.0.1:0", servers, s)
	w := a.watch(WatchOptions{Servers: []string{at}})
	if all, _ := w.told(1); all[0].Name != mustName(t, "app.bank.") {
		t.Errorf("a watcher of another group is told %s", say(&all[0]))
	}
	s.leave(control.GroupKey{Datacenter: "dc-b", Group: "pool.dns.stolen"})
	if err := s.admit(control.GroupKey{Datacenter: "dc-b", Group: "pool.dns.stolen"}); err != nil {
		t.Errorf("who takes the place of one that has left: %v", err)
	}
}

// silent says that it has told all, and nothing after.
type silent struct {
	changespb.UnimplementedChangesServer
}

func (silent) Watch(_ *changespb.WatchRequest, stream grpc.ServerStreamingServer[changespb.Batch]) error {
	if err := stream.Send(&changespb.Batch{Boot: 1, CaughtUp: true}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func TestASilentServerIsGivenUp(t *testing.T) {
	a := newAuthority(t)
	at, _ := a.serve("127.0.0.1:0", servers, service(t, NewLog()))
	quiet, _ := a.serve("127.0.0.1:0", servers, silent{})
	w := a.watch(WatchOptions{Servers: []string{at}})
	w.expect(at + " true")
	v := a.watch(WatchOptions{Servers: []string{quiet}})
	v.expect(quiet + " true")
	v.expect(quiet + " false")
	select {
	case got := <-w.events:
		t.Errorf("of a server that has nothing to tell it is said that %s", got)
	default:
	}
}

func TestAChangeWithNamesThatAreNoneIsLeftOut(t *testing.T) {
	whole := &changespb.Change{Name: []byte("\x03app\x00"), Apex: []byte{0}}
	for sentence, m := range map[string]*changespb.Change{
		"no name":                {Apex: []byte{0}},
		"octets behind the apex": {Name: []byte{0}, Apex: []byte{0, 0}},
		"half an alias":          {Name: []byte{0}, Apex: []byte{0}, Aliases: [][]byte{{3, 'w'}}},
	} {
		if all, err := decode([]*changespb.Change{m, whole}); err == nil || len(all) != 1 || all[0].Name != "\x03app\x00" {
			t.Errorf("%s is read as %+v, %v", sentence, all, err)
		}
	}
}

// FuzzBatch holds changes that an agent takes to names that are whole, and in lower case.
func FuzzBatch(f *testing.F) {
	whole, err := proto.Marshal(&changespb.Batch{Changes: []*changespb.Change{{
		Name: []byte("\x03App\x04bank\x00"), Apex: []byte("\x04bank\x00"), Aliases: [][]byte{[]byte("\x03www\x04bank\x00")}, Before: []uint64{1}, After: 2, Serial: 7, At: 1,
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-9])
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &changespb.Batch{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		all, _ := decode(m.GetChanges())
		for _, c := range all {
			for _, n := range append(c.Aliases, c.Name, c.Apex) {
				if again, size, err := zone.NameFromWire([]byte(n)); err != nil || size != len(n) || again != n {
					t.Errorf("%x is taken for a name", string(n))
				}
			}
		}
	})
}
