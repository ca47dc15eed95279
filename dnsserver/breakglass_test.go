package dnsserver

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// keptState is a disk that works.
type keptState map[string][]byte

func (k keptState) LoadState() (map[string][]byte, error) {
	return maps.Clone(k), nil
}

func (k keptState) SaveState(entries map[string][]byte) error {
	for key, value := range entries {
		if k[key] = value; value == nil {
			delete(k, key)
		}
	}
	return nil
}

// testSteerer returns the steerer of a server without peers, and what it has told peers of overrides.
func testSteerer(t *testing.T, memory steeringMemory) (s *steerer, told *[][][]byte) {
	t.Helper()
	told = new([][][]byte)
	s, err := newSteerer(steererOptions{
		Self: health.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "auth-0"}, View: &zone.View{},
		Report: func(string, []byte) error { return nil }, Send: func([]health.Envelope) {}, SetPeers: func([]mesh.Peer) {},
		SendOverrides: func(all [][]byte) { *told = append(*told, all) }, Memory: memory,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, told
}

func drainOf(name string, created time.Time, lasting time.Duration) *steeringpb.Override {
	return &steeringpb.Override{
		Source: "local/" + name, Created: uint64(created.UnixMilli()), Expires: uint64(created.Add(lasting).UnixMilli()), AllRecords: true,
		Action: &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Datacenter: "dc-b"}},
	}
}

func encodedOverride(t *testing.T, o *steeringpb.Override) []byte {
	t.Helper()
	b, err := proto.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inForce(s *steerer, now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, o := range s.local.all() {
		if o.InForce(now) {
			n++
		}
	}
	return n
}

func TestBreakGlassOverrides(t *testing.T) {
	for name, test := range map[string]func(t *testing.T){
		"one that was ended early does not come back from a peer that was cut off": func(t *testing.T) {
			t.Helper()
			s, _ := testSteerer(t, nil)
			made := drainOf("b", time.Now(), 20*time.Hour)
			s.hearOverrides([][]byte{encodedOverride(t, made)})
			time.Sleep(time.Minute)
			if err := s.override(drainOf("b", time.Now(), 0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Hour)
			s.local.forget(time.Now())
			s.hearOverrides([][]byte{encodedOverride(t, made)})
			if inForce(s, time.Now()) > 0 {
				t.Error("it is in force again")
			}
			time.Sleep(20 * time.Hour)
			if s.local.forget(time.Now()); len(s.local.bySource) > 0 || s.local.size != 0 {
				t.Errorf("%d are kept for ever, with %d octets", len(s.local.bySource), s.local.size)
			}
		},
		"it ends, even if the clock of the server where it was made is years ahead": func(t *testing.T) {
			t.Helper()
			s, _ := testSteerer(t, nil)
			s.hearOverrides([][]byte{encodedOverride(t, drainOf("b", time.Now().AddDate(2, 0, 0), time.Hour))})
			if time.Sleep(49 * time.Hour); inForce(s, time.Now()) > 0 {
				t.Error("it is in force after two days")
			}
		},
		"it can be ended where the clock is behind that of the server where it was made": func(t *testing.T) {
			t.Helper()
			s, _ := testSteerer(t, nil)
			s.hearOverrides([][]byte{encodedOverride(t, drainOf("b", time.Now().Add(time.Hour), time.Hour))})
			if err := s.override(drainOf("b", time.Now(), 0)); err != nil {
				t.Fatal(err)
			}
			if inForce(s, time.Now()) > 0 {
				t.Error("it is in force still")
			}
		},
		"a peer is not told more than one message holds": func(t *testing.T) {
			t.Helper()
			s, told := testSteerer(t, nil)
			var refused error
			for i := range 64 {
				o := drainOf(fmt.Sprint(i), time.Now(), time.Hour)
				o.Reason = strings.Repeat("x", 32<<10)
				if err := s.override(o); err != nil {
					refused = err
				}
			}
			size := 0
			for _, o := range (*told)[len(*told)-1] {
				size += len(o)
			}
			if size > 768<<10 || refused == nil {
				t.Errorf("%d octets, and the last was refused with %v", size, refused)
			}
		},
		"what a peer tells again is not told on": func(t *testing.T) {
			t.Helper()
			s, told := testSteerer(t, nil)
			o := encodedOverride(t, drainOf("b", time.Now(), time.Hour))
			s.hearOverrides([][]byte{o})
			if s.hearOverrides([][]byte{o}); len(*told) != 1 {
				t.Errorf("told %d times", len(*told))
			}
		},
		"it is in force after a restart": func(t *testing.T) {
			t.Helper()
			disk := keptState{}
			s, _ := testSteerer(t, disk)
			if err := s.override(drainOf("b", time.Now(), time.Hour)); err != nil {
				t.Fatal(err)
			}
			if s, _ = testSteerer(t, disk); inForce(s, time.Now()) != 1 {
				t.Error("it is lost")
			}
		},
		"a body without end is refused": func(t *testing.T) {
			t.Helper()
			s, _ := testSteerer(t, nil)
			o := drainOf("b", time.Now(), time.Hour)
			o.Reason = strings.Repeat("x", 2<<20)
			body, err := protojson.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			if s.makeOverride(w, httptest.NewRequest(http.MethodPost, "/overrides", strings.NewReader(string(body)))); w.Code != http.StatusBadRequest {
				t.Errorf("status %d", w.Code)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}
