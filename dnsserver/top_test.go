package dnsserver

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func question(t testing.TB, name string) []byte {
	t.Helper()
	b, err := query(name).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTopNames asks for many names, few of them often.
func TestTopNames(t *testing.T) {
	top := newTopNames(10)
	r := rand.New(rand.NewPCG(1, 2))
	const queries = 200_000
	want := map[string]int{}
	for range queries {
		name := fmt.Sprintf("rare%d.example.test.", r.IntN(1_000_000))
		if n := r.IntN(100); n < 60 {
			n = r.IntN(n + 1)
			name = fmt.Sprintf("often%d.example.test.", n)
		}
		want[name]++
		if r.IntN(2) == 0 {
			name = strings.ToUpper(name)
		}
		top.watch(&seen{query: question(t, name), at: 1e9})
	}
	report := top.report(30)
	if report.Sampled != queries || report.Every != 10 || len(report.Names) != 30 || len(top.entries) != topSize || len(top.places) != topSize {
		t.Fatalf("%d names of %d samples, %d in memory", len(report.Names), report.Sampled, len(top.entries))
	}
	for i, n := range report.Names {
		asked := want[strings.ToLower(n.Name)]
		if uint64(asked) > n.Count || uint64(asked) < n.Count-n.Excess || n.Share != float64(n.Count)/queries {
			t.Errorf("%s has %d, and is told to have %d with %d of others", n.Name, asked, n.Count, n.Excess)
		}
		if i < 10 && strings.ToLower(n.Name) != fmt.Sprintf("often%d.example.test.", i) {
			t.Errorf("number %d is %s", i, n.Name)
		}
		if i > 0 && n.Count > report.Names[i-1].Count {
			t.Errorf("number %d has more than the one before", i)
		}
	}
	for i := range top.entries {
		if i > 0 && top.entries[(i-1)/2].count > top.entries[i].count {
			t.Fatalf("the heap is none at %d", i)
		}
		if top.places[top.entries[i].hash] != i {
			t.Fatalf("entry %d is thought to be at %d", i, top.places[top.entries[i].hash])
		}
	}
}

func TestTopNamesFade(t *testing.T) {
	top := newTopNames(1)
	for range 1000 {
		top.watch(&seen{query: question(t, "old.test."), at: 1e9})
	}
	for i := range 8 {
		for range 100 {
			top.watch(&seen{query: question(t, "new.test."), at: 1e9 + int64(i)*topHalfLife})
		}
	}
	names := top.report(2).Names
	if names[0].Name != "new.test." || names[1].Name != "old.test." || names[1].Count != 1000>>7 {
		t.Errorf("after a while the top is %v", names)
	}
}

func TestTopIgnoresWhatIsNoQuestion(t *testing.T) {
	top := newTopNames(1)
	for _, message := range [][]byte{nil, {1, 2, 3}, make([]byte, 12), append(make([]byte, 12), 0x40), append(make([]byte, 12), strings.Repeat("\x01a", 128)...)} {
		top.watch(&seen{query: message, at: 1})
	}
	if top.total != 0 {
		t.Errorf("%d samples", top.total)
	}
	long := []byte("............" + strings.Repeat("\x3f"+strings.Repeat("x", 63), 3) + "\x3d" + strings.Repeat("x", 61) + "\x00\x00\x01\x00\x01")
	top.watch(&seen{query: long, at: 1})
	if names := top.report(1).Names; len(names) != 1 || names[0].Name != zone.Name(long[12:12+255]).String() {
		t.Errorf("the longest name is told as %v", names)
	}
}

func TestTopOverHTTP(t *testing.T) {
	top := newTopNames(7)
	for i := range 50 {
		for range i + 1 {
			top.watch(&seen{query: question(t, fmt.Sprintf("n%d.test.", i)), at: 1})
		}
	}
	for path, want := range map[string]int{"/top": 20, "/top?n=3": 3, "/top?n=1000": 50, "/top?n=0": -1, "/top?n=1001": -1, "/top?n=x": -1} {
		w := httptest.NewRecorder()
		top.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		var r topReport
		if err := json.Unmarshal(w.Body.Bytes(), &r); (err == nil) != (want > 0) || want < 0 && w.Code != http.StatusBadRequest || want > 0 && len(r.Names) != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if want > 0 && (r.Names[0] != topName{Name: "n49.test.", Count: 50, Share: 50.0 / 1275}) {
			t.Errorf("%s: %v", path, r.Names[0])
		}
	}
}

func BenchmarkTopNames(b *testing.B) {
	var questions [][]byte
	for i := range 10_000 {
		questions = append(questions, question(b, fmt.Sprintf("n%d.example.test.", i)))
	}
	top := newTopNames(1)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		top.watch(&seen{query: questions[i*i%len(questions)], at: 1})
	}
}
