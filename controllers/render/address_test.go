package render_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// addressDay is when the addresses of these tests are looked at; times in them are seconds since then.
var addressDay = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func addressesIn(text string) (list []netip.Addr) {
	for a := range strings.FieldsSeq(text) {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

// knownIn reads "ADDRESS STATE SINCE [UNTIL]", with commas between.
func knownIn(t testing.TB, text string) (known []v1alpha1.ServerAddress) {
	t.Helper()
	for entry := range strings.SplitSeq(text, ",") {
		f := strings.Fields(entry)
		if len(f) == 0 {
			continue
		}
		at := func(text string) metav1.Time {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil {
				t.Fatalf("%q: %v", entry, err)
			}
			return metav1.NewTime(addressDay.Add(time.Duration(n) * time.Second))
		}
		k := v1alpha1.ServerAddress{Address: v1alpha1.IP(f[0]), State: v1alpha1.ServerAddressState(f[1]), Since: at(f[2])}
		if len(f) > 3 {
			until := at(f[3])
			k.Until = &until
		}
		known = append(known, k)
	}
	return known
}

func knownText(known []v1alpha1.ServerAddress) string {
	var all []string
	for _, k := range known {
		text := fmt.Sprintf("%s %s %d", k.Address, k.State, int(k.Since.Sub(addressDay)/time.Second))
		if k.Until != nil {
			text += fmt.Sprintf(" %d", int(k.Until.Sub(addressDay)/time.Second))
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func TestAddresses(t *testing.T) {
	const ttl = 99 * time.Second // and one second for the parts of seconds that the API does not keep
	for name, c := range map[string]struct {
		known, wanted, held string
		answer, silent      string // of those that are asked
		handedOut           string
		removed, last       bool
		want                string // at second 1000
		lost, missing       string
		again               int
	}{
		"an address that the group gets is not delegated to before it answers": {
			wanted: "192.0.2.1", held: "192.0.2.1", silent: "192.0.2.1", want: "192.0.2.1 Pending 1000",
		},
		"an address is delegated to when it answers": {
			known: "192.0.2.1 Pending 900", wanted: "192.0.2.1", held: "192.0.2.1", answer: "192.0.2.1", want: "192.0.2.1 Delegated 1000",
		},
		"an address that answers at the first look is delegated to at once": {
			wanted: "192.0.2.1", held: "192.0.2.1", answer: "192.0.2.1", want: "192.0.2.1 Delegated 1000",
		},
		"an address that goes on not to answer stays pending since it came": {
			known: "192.0.2.1 Pending 900", wanted: "192.0.2.1", held: "192.0.2.1", silent: "192.0.2.1", want: "192.0.2.1 Pending 900",
		},
		"an address that nobody asked stays as it is": {
			known: "192.0.2.1 Pending 900", wanted: "192.0.2.1", held: "192.0.2.1", want: "192.0.2.1 Pending 900",
		},
		"a pending address that is not wanted any more is forgotten": {
			known: "192.0.2.1 Pending 900", held: "192.0.2.1",
		},
		"a pending address that the group has lost is forgotten": {
			known: "192.0.2.1 Pending 900", wanted: "192.0.2.1", missing: "192.0.2.1",
		},
		"a wanted address that the group has not got is waited for": {
			wanted: "192.0.2.1 2001:db8::1", held: "2001:db8::1", answer: "2001:db8::1", want: "2001:db8::1 Delegated 1000", missing: "192.0.2.1",
		},
		"both families are delegated to": {
			wanted: "192.0.2.1 2001:db8::1", held: "192.0.2.1 2001:db8::1", answer: "192.0.2.1 2001:db8::1",
			want: "192.0.2.1 Delegated 1000, 2001:db8::1 Delegated 1000",
		},
		"an address that is delegated to is not asked again": {
			known: "192.0.2.1 Delegated 900", wanted: "192.0.2.1", held: "192.0.2.1", want: "192.0.2.1 Delegated 900",
		},
		"the address before stays while the new one does not answer": {
			known: "192.0.2.1 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", silent: "192.0.2.2",
			want: "192.0.2.1 Delegated 900, 192.0.2.2 Pending 1000",
		},
		"the address before stays while the group has not got the new one": {
			known: "192.0.2.1 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1", want: "192.0.2.1 Delegated 900", missing: "192.0.2.2",
		},
		"the address before stays while it is not known what is to come": {
			known: "192.0.2.1 Delegated 900", held: "192.0.2.1", want: "192.0.2.1 Delegated 900",
		},
		"the address before stays until all that are to come answer": {
			known: "192.0.2.1 Delegated 900", wanted: "192.0.2.2 192.0.2.3", held: "192.0.2.1 192.0.2.2 192.0.2.3", answer: "192.0.2.2", silent: "192.0.2.3",
			want: "192.0.2.1 Delegated 900, 192.0.2.2 Delegated 1000, 192.0.2.3 Pending 1000",
		},
		"the address before leaves when the new one answers": {
			known: "192.0.2.1 Delegated 900, 192.0.2.2 Pending 950", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", answer: "192.0.2.2", handedOut: "192.0.2.1",
			want: "192.0.2.1 Leaving 1000, 192.0.2.2 Delegated 1000",
		},
		"while a server hands it out its time does not begin": {
			known: "192.0.2.1 Leaving 900, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", handedOut: "192.0.2.1",
			want: "192.0.2.1 Leaving 900, 192.0.2.2 Delegated 900",
		},
		"its time begins when the last server hands it out no more": {
			known: "192.0.2.1 Leaving 900, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2",
			want: "192.0.2.1 Leaving 900 1100, 192.0.2.2 Delegated 900", again: 1100,
		},
		"its time goes on": {
			known: "192.0.2.1 Leaving 900 1001, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2",
			want: "192.0.2.1 Leaving 900 1001, 192.0.2.2 Delegated 900", again: 1001,
		},
		"its time begins anew after a server has handed it out again": {
			known: "192.0.2.1 Leaving 900 1050, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", handedOut: "192.0.2.1",
			want: "192.0.2.1 Leaving 900, 192.0.2.2 Delegated 900",
		},
		"after its time it is gone": {
			known: "192.0.2.1 Leaving 900 1000, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", want: "192.0.2.2 Delegated 900",
		},
		"an address that leaves and is lost is gone": {
			known: "192.0.2.1 Leaving 900 1050, 192.0.2.2 Delegated 900", wanted: "192.0.2.2", held: "192.0.2.2", want: "192.0.2.2 Delegated 900",
		},
		"an address that leaves and is wanted again stays if it answers": {
			known: "192.0.2.1 Leaving 900 1050, 192.0.2.2 Delegated 900", wanted: "192.0.2.1", held: "192.0.2.1 192.0.2.2", answer: "192.0.2.1", handedOut: "192.0.2.2",
			want: "192.0.2.1 Delegated 1000, 192.0.2.2 Leaving 1000",
		},
		"an address that leaves and is wanted again waits for its answer": {
			known: "192.0.2.1 Leaving 900 1000, 192.0.2.2 Delegated 900", wanted: "192.0.2.1", held: "192.0.2.1 192.0.2.2", silent: "192.0.2.1",
			want: "192.0.2.1 Pending 1000, 192.0.2.2 Delegated 900",
		},
		"one of several that is lost is gone at once": {
			known: "192.0.2.1 Delegated 900, 192.0.2.2 Delegated 900", wanted: "192.0.2.1 192.0.2.2", held: "192.0.2.2",
			want: "192.0.2.2 Delegated 900", lost: "192.0.2.1", missing: "192.0.2.1",
		},
		"the last one that is lost is remembered": {
			known: "192.0.2.1 Delegated 900", want: "192.0.2.1 Lost 1000", lost: "192.0.2.1",
		},
		"a lost one that is known is not told again": {
			known: "192.0.2.1 Lost 900", want: "192.0.2.1 Lost 900",
		},
		"a lost one stays while what comes instead does not answer": {
			known: "192.0.2.1 Lost 900", wanted: "192.0.2.2", held: "192.0.2.2", silent: "192.0.2.2", want: "192.0.2.1 Lost 900, 192.0.2.2 Pending 1000",
		},
		"a lost one is forgotten when another answers": {
			known: "192.0.2.1 Lost 900, 192.0.2.2 Pending 950", wanted: "192.0.2.2", held: "192.0.2.2", answer: "192.0.2.2", want: "192.0.2.2 Delegated 1000",
		},
		"a lost one that is back is delegated to when it answers": {
			known: "192.0.2.1 Lost 900", wanted: "192.0.2.1", held: "192.0.2.1", answer: "192.0.2.1", want: "192.0.2.1 Delegated 1000",
		},
		"a lost one that is back without an answer is still lost": {
			known: "192.0.2.1 Lost 900", wanted: "192.0.2.1", held: "192.0.2.1", silent: "192.0.2.1", want: "192.0.2.1 Lost 900",
		},
		"a lost one that is back waits for its answer beside another": {
			known: "192.0.2.1 Lost 900", wanted: "192.0.2.1 192.0.2.2", held: "192.0.2.1 192.0.2.2", silent: "192.0.2.1", answer: "192.0.2.2",
			want: "192.0.2.1 Pending 1000, 192.0.2.2 Delegated 1000",
		},
		"a group that goes leaves all its addresses": {
			known: "192.0.2.1 Delegated 900, 192.0.2.2 Pending 900", held: "192.0.2.1 192.0.2.2", removed: true, handedOut: "192.0.2.1", want: "192.0.2.1 Leaving 1000",
		},
		"a group that goes is gone after their time": {
			known: "192.0.2.1 Leaving 900 1000", held: "192.0.2.1", removed: true,
		},
		"a group that goes loses nothing": {
			known: "192.0.2.1 Delegated 900, 192.0.2.2 Lost 900", removed: true,
		},
		"a group that goes with its zones has nothing to wait for": {
			known: "192.0.2.1 Delegated 900", held: "192.0.2.1", handedOut: "192.0.2.1", removed: true, last: true,
		},
		"a group without addresses has none": {},
	} {
		t.Run(name, func(t *testing.T) {
			now := addressDay.Add(1000*time.Second + 400*time.Millisecond)
			in := render.AddressInputs{
				Known: knownIn(t, c.known), Wanted: addressesIn(c.wanted), Held: addressesIn(c.held), Removed: c.removed, Last: c.last,
				Answers: map[netip.Addr]error{}, HandedOut: map[netip.Addr]bool{}, TTL: ttl, Now: now,
			}
			ask := render.ToAsk(in)
			for _, a := range append(addressesIn(c.answer), addressesIn(c.silent)...) {
				in.Answers[a] = nil
				if slices.Contains(addressesIn(c.silent), a) {
					in.Answers[a] = errors.New("no answer")
				}
				if !slices.Contains(ask, a) {
					t.Errorf("%s is not asked, but %v", a, ask)
				}
			}
			for _, a := range addressesIn(c.handedOut) {
				in.HandedOut[a] = true
			}
			got := render.Addresses(in)
			if text := knownText(got.Addresses); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
			if !slices.Equal(got.Lost, addressesIn(c.lost)) || !slices.Equal(got.Missing, addressesIn(c.missing)) {
				t.Errorf("lost %v, missing %v", got.Lost, got.Missing)
			}
			if again := got.Again; c.again == 0 != again.IsZero() || c.again != 0 && !again.Equal(addressDay.Add(time.Duration(c.again)*time.Second)) {
				t.Errorf("again at %s", again)
			}
			if len(got.Silent) != len(addressesIn(c.silent)) {
				t.Errorf("silent are %v", got.Silent)
			}
			in.Known, in.Answers = got.Addresses, nil
			if again := render.Addresses(in); !slices.EqualFunc(again.Addresses, got.Addresses, func(a, b v1alpha1.ServerAddress) bool {
				return knownText([]v1alpha1.ServerAddress{a}) == knownText([]v1alpha1.ServerAddress{b})
			}) || len(again.Lost) > 0 {
				t.Errorf("looked at again, which is what a manager does that restarts, %s becomes %s", knownText(got.Addresses), knownText(again.Addresses))
			}
		})
	}
}

// TestAddressesComeBeforeOthersGo plays histories of changes, losses and answers. Each step begins with what the one before put
// into the status, as after a restart.
func TestAddressesComeBeforeOthersGo(t *testing.T) {
	pool := addressesIn("192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1")
	some := rapid.Custom(func(t *rapid.T) (list []netip.Addr) {
		for _, a := range pool {
			if rapid.Bool().Draw(t, a.String()) {
				list = append(list, a)
			}
		}
		return list
	})
	rapid.Check(t, func(t *rapid.T) {
		in := render.AddressInputs{Now: addressDay, TTL: 10 * time.Second}
		out := map[netip.Addr]time.Time{} // when an address was in the glue last
		delegated := func() (list []netip.Addr) {
			for _, k := range in.Known {
				if k.State == v1alpha1.ServerAddressDelegated {
					list = append(list, netip.MustParseAddr(string(k.Address)))
				}
			}
			return list
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			in.Now = in.Now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "seconds")) * time.Second)
			in.Wanted, in.Held = some.Draw(t, "wanted"), some.Draw(t, "held")
			in.Answers, in.HandedOut = map[netip.Addr]error{}, map[netip.Addr]bool{}
			for _, a := range render.ToAsk(in) {
				in.Answers[a] = nil
				if rapid.Bool().Draw(t, "silent") {
					in.Answers[a] = errors.New("silent")
				}
			}
			for _, a := range some.Draw(t, "handed out") {
				in.HandedOut[a] = true
				out[a] = in.Now
			}
			before, was := delegated(), in.Known
			for _, a := range before {
				out[a] = in.Now
			}
			r := render.Addresses(in)
			in.Known = r.Addresses
			after := delegated()
			for _, a := range after {
				if answer, asked := in.Answers[a]; !slices.Contains(before, a) && (!asked || answer != nil) {
					t.Fatalf("%s is delegated to without an answer", a)
				}
				if !slices.Contains(in.Held, a) {
					t.Fatalf("%s is delegated to, which the group has not", a)
				}
			}
			if len(after) == 0 && slices.ContainsFunc(before, func(a netip.Addr) bool { return slices.Contains(in.Held, a) }) {
				t.Fatalf("of %v, held %v, none is delegated to any more", before, in.Held)
			}
			if len(after) == 0 && len(before) > 0 && !slices.ContainsFunc(r.Addresses, func(k v1alpha1.ServerAddress) bool { return k.State == v1alpha1.ServerAddressLost }) {
				t.Fatalf("nothing is left for zones without addresses: %s", knownText(r.Addresses))
			}
			for _, k := range was {
				a := netip.MustParseAddr(string(k.Address))
				gone := !slices.ContainsFunc(r.Addresses, func(n v1alpha1.ServerAddress) bool { return n.Address == k.Address })
				early := in.Now.Sub(out[a]) < in.TTL
				if gone && early && slices.Contains(in.Held, a) && (k.State == v1alpha1.ServerAddressLeaving || k.State == v1alpha1.ServerAddressDelegated) {
					t.Fatalf("%s was handed out at %s and is let go at %s", a, out[a], in.Now)
				}
			}
		}
	})
}
