package zone

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

func small(t testing.TB, apex string, serial uint32) *Served {
	t.Helper()
	return served(t, apex, fmt.Sprintf("@ SOA ns hostmaster %d 2 3 4 5\n@ NS ns\nns A 10.0.0.1\na A 10.0.0.%d\nb A 10.0.0.%d\n", serial, serial%250, serial%250))
}

func TestServedNeedsOneSOA(t *testing.T) {
	apex := mustName(t, "example.test.")
	soa := SOA{MName: apex, RName: apex, Minimum: 1}
	soa2 := soa
	soa2.Refresh = 2
	for sentence, sets := range map[string][]RRset{
		"no SOA":           {a(1)},
		"two SOA":          {NewRRset(TypeSOA, 1, soa.Pack(), soa2.Pack())},
		"an SOA cut short": {NewRRset(TypeSOA, 1, soa.Pack()[:30])},
	} {
		content, err := NewContent(apex, []Node{NewNode(apex, sets...)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewServed(content, Version{}); err == nil || !strings.Contains(err.Error(), "example.test.") {
			t.Errorf("%s: error %v", sentence, err)
		}
	}
	if _, err := NewServed(&Content{apex: apex}, Version{}); err == nil {
		t.Error("empty content is served")
	}
}

func TestViewUpdates(t *testing.T) {
	v, s := &View{}, &Scratch{}
	rcode := func(line string) string {
		message, over := question(t, line)
		return summary(t, ask(v, s, message, over))
	}
	expect := func(sentence, line, want string) {
		t.Helper()
		if got := rcode(line); got != want {
			t.Errorf("%s: %s is answered %s, wanted %s", sentence, line, got, want)
		}
	}
	apex := mustName(t, "a.test.")

	expect("a new view is not ready", "a.test. SOA", "SERVFAIL 1/0/0/0")
	v.Update(nil, nil)
	expect("a view without zones refuses", "a.test. SOA", "REFUSED 1/0/0/0")
	v.Update([]*Served{small(t, "a.test.", 1), small(t, "b.test.", 1)}, nil)
	expect("zones come", "a.test. SOA", "NOERROR aa 1/1/0/0")
	expect("zones come", "b.test. SOA", "NOERROR aa 1/1/0/0")
	v.Update([]*Served{small(t, "a.test.", 2), small(t, "deep.in.a.test.", 1)}, []Name{mustName(t, "b.test."), mustName(t, "never.test.")})
	if got := v.Zone(apex).Version().Serial; got != 2 {
		t.Errorf("a new version has serial %d", got)
	}
	expect("zones go", "b.test. SOA", "REFUSED 1/0/0/0")
	expect("a deeper zone comes", "x.deep.in.a.test. A", "NXDOMAIN aa 1/0/1/0")
	v.Update(nil, []Name{mustName(t, "deep.in.a.test.")})
	expect("a deeper zone goes", "x.deep.in.a.test. A", "NXDOMAIN aa 1/0/1/0")
	v.Update([]*Served{small(t, "a.test.", 3)}, []Name{apex})
	if v.Len() != 1 || v.Zone(apex).Version().Serial != 3 {
		t.Errorf("a zone that is installed and removed is not there")
	}
	v.Update(nil, []Name{apex})
	expect("the last zone goes", "a.test. SOA", "REFUSED 1/0/0/0")
	if v.Len() != 0 || v.Zone(apex) != nil || !v.Ready() {
		t.Errorf("the last zone is still there")
	}
}

// TestReadersSeeWholeVersions asks while versions change: the serial and the addresses of
// an answer are of one version, versions never go back, and other zones stay.
func TestAMuteViewRefusesAllAndForgetsNothing(t *testing.T) {
	v, s := &View{}, &Scratch{}
	expect := func(want string) {
		t.Helper()
		message, over := question(t, "a.a.test. A")
		if got := summary(t, ask(v, s, message, over)); got != want {
			t.Errorf("answered %s, wanted %s", got, want)
		}
		var a Ahead
		v.Ahead(&a, [][]byte{message})
		if got := summary(t, v.AnswerAhead(s, &a, 0, make([]byte, 0, MaxMessage), message, netip.MustParseAddr("192.0.2.1"), over)); got != want {
			t.Errorf("ahead answered %s, wanted %s", got, want)
		}
	}
	const refused, answered = "REFUSED 1/0/0/0", "NOERROR aa 1/1/0/0"
	v.Mute(true)
	if v.Ready() {
		t.Error("ready without an Update")
	}
	v.Update([]*Served{small(t, "a.test.", 1)}, nil)
	expect(refused)
	v.Update([]*Served{small(t, "a.test.", 2), small(t, "b.test.", 1)}, nil)
	expect(refused)
	if z := v.Zone(mustName(t, "a.test.")); z == nil || z.Version().Serial != 2 || v.Len() != 2 || !v.Ready() || !v.Muted() {
		t.Errorf("it has %d zones, a.test. is %v", v.Len(), z)
	}
	v.Mute(false)
	expect(answered)
	v.Mute(true)
	expect(refused)
	v.Update(nil, []Name{mustName(t, "a.test.")})
	v.Mute(false)
	expect(refused) // it is gone
}

func TestReadersSeeWholeVersions(t *testing.T) {
	v := viewOf(small(t, "a.test.", 1), small(t, "stays.test.", 1))
	var versions []*Served
	for serial := range uint32(200) {
		versions = append(versions, small(t, "a.test.", serial+2))
	}
	comes := small(t, "comes.test.", 1)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			s, last := &Scratch{}, uint32(0)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				message, _ := question(t, "a.test. SOA")
				var m dns.Msg
				if err := m.Unpack(ask(v, s, message, UDP)); err != nil || len(m.Answer) != 1 {
					t.Errorf("answered %v %v", &m, err)
					return
				}
				serial := m.Answer[0].(*dns.SOA).Serial
				if serial < last {
					t.Errorf("serial %d after %d", serial, last)
				}
				last = serial
				message, _ = question(t, "stays.test. SOA")
				if got := summary(t, ask(v, s, message, UDP)); got != "NOERROR aa 1/1/0/0" {
					t.Errorf("a zone that stays is answered %s", got)
				}
			}
		})
	}
	for i, z := range versions {
		v.Update([]*Served{z}, nil)
		if i%2 == 0 {
			v.Update([]*Served{comes}, nil)
		} else {
			v.Update(nil, []Name{comes.Apex()})
		}
		runtime.Gosched()
	}
	close(done)
	readers.Wait()
}

func TestManyZonesComeInOneUpdate(t *testing.T) {
	template := small(t, "a.test.", 1)
	var zones []*Served
	for i := range 20000 {
		apex := mustName(t, fmt.Sprintf("zone%d.test.", i))
		content, err := NewContent(apex, []Node{NewNode(apex, template.apex.RRsets...)})
		if err != nil {
			t.Fatal(err)
		}
		z, err := NewServed(content, Version{Serial: 1})
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, z)
	}
	v := &View{}
	start := time.Now()
	v.Update(zones, nil)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%d zones took %v", len(zones), took)
	}
	if v.Len() != len(zones) {
		t.Errorf("%d zones", v.Len())
	}
	message, _ := question(t, "zone19999.test. SOA")
	if got := summary(t, ask(v, &Scratch{}, message, UDP)); got != "NOERROR aa 1/1/0/0" {
		t.Errorf("answered %s", got)
	}
}

// TestDissected holds the name taken apart against Name.
func TestDissected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire := []byte{}
		for range rapid.IntRange(0, 6).Draw(t, "labels") {
			label := rapid.SliceOfN(rapid.SampledFrom([]byte("\x00\x01\x02aAzZ*.[@`{\xff")), 1, 63).Draw(t, "label")
			if len(wire)+len(label)+2 <= MaxName {
				wire = append(append(wire, byte(len(label))), label...)
			}
		}
		wire = append(wire, 0)
		name, size, err := NameFromWire(wire)
		if err != nil {
			t.Fatal(err)
		}
		var d dissected
		if !d.read(append(wire, "behind"...)) || d.size != size || string(d.name()) != string(name) || d.labels != name.Labels() {
			t.Fatalf("%q is taken apart into %q, %d labels", name, d.name(), d.labels)
		}
		depth := d.labels
		for n := name; n != ""; n = n.Parent() {
			if string(d.suffix(depth)) != string(n) || !d.within(n, depth) {
				t.Fatalf("the last %d labels of %q are %q", depth, name, d.suffix(depth))
			}
			depth--
		}
	})
}
