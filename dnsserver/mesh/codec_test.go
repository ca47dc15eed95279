package mesh

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh/meshpb"
)

func everyMessage() []health.Message {
	ballot := health.Ballot{
		Check: health.CheckID{1, 2, 3}, Vote: health.Down, Since: 17, Datacenter: health.Degraded, DatacenterSince: 18, Latency: 1900,
		Verdicts: []health.Verdict{{Home: "dc-a", Hold: true, State: health.Up, Since: 19}},
	}
	return []health.Message{
		{Heartbeat: &health.Heartbeat{Boot: 1, Began: 9, Seq: 2, Digest: 3, LatchDigest: 4, Settled: true, Isolated: true, Sick: true, Anchors: []string{"dc-b"}}},
		{Ballots: &health.Ballots{Boot: 1, Seq: 2, Ballots: []health.Ballot{ballot, {Check: health.CheckID{9}}}}},
		{Ask: &health.Ask{Digests: slices.Repeat([]uint64{6}, 256), Nonce: 7, LatchDigest: 8}},
		{Table: &health.Table{Boot: 1, Seq: 2, Parts: []uint8{0, 255}, Ballots: []health.Ballot{ballot}, Last: true}},
		{Latches: &health.Latches{Last: true, Nonce: 9, Latches: []health.Latch{{
			LatchKey: health.LatchKey{Record: "a/b", Pool: "p", Scope: "dc-a"}, Out: true, At: 5, By: "x", Person: true,
		}}}},
	}
}

// What a server says of itself is of no use to others if a field of it never gets there.
func TestEveryFieldIsTried(t *testing.T) {
	tried := map[string]bool{}
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				visit(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				visit(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				tried[name] = tried[name] || !v.Field(i).IsZero()
				visit(v.Field(i))
			}
		}
	}
	for _, m := range everyMessage() {
		visit(reflect.ValueOf(m))
	}
	for name, is := range tried {
		if !is {
			t.Errorf("%s is zero in all messages", name)
		}
	}
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range everyMessage() {
		b, err := proto.Marshal(encode(m))
		if err != nil {
			t.Fatal(err)
		}
		var read meshpb.Message
		if err := proto.Unmarshal(b, &read); err != nil {
			t.Fatal(err)
		}
		got, err := decode(&read)
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%v (-sent +received)\n%s", err, diff)
		}
	}
}

// FuzzDecode: whatever a peer sends is a message that package health can hold, or an error.
func FuzzDecode(f *testing.F) {
	for _, m := range everyMessage() {
		b, err := proto.Marshal(encode(m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m meshpb.Message
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		got, err := decode(&m)
		if err != nil {
			return
		}
		again, err := decode(encode(got))
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}
