package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// AddressInputs is all that decides about the addresses of one Managed server group at its place. What is remembered of
// them is in Known alone, so that a manager that restarts goes on where the last one was.
type AddressInputs struct {
	Known []v1alpha1.ServerAddress // from the status
	// Wanted are the addresses that the group is to have as it is declared now, also those that it has not got.
	Wanted []netip.Addr
	// Held are the addresses that lead to the group's servers now, also those of earlier declarations.
	Held []netip.Addr
	// Removed: group or Datacenter goes, so nothing is wanted. Everything leaves, whether or not something comes instead.
	Removed bool
	// Last, with Removed: no zone of the group has a name server elsewhere, so there is nothing to wait for.
	Last bool
	// Answers are what came of asking addresses (ToAsk); nil: it answered as it should.
	Answers map[netip.Addr]error
	// HandedOut are the addresses that some server may still hand out.
	HandedOut map[netip.Addr]bool
	// TTL is how long resolvers keep what they were handed out last.
	TTL time.Duration
	Now time.Time
}

// AddressResult is what becomes of the addresses of one server group.
type AddressResult struct {
	Addresses []v1alpha1.ServerAddress // for the status; by address
	Lost      []netip.Addr             // that zones were delegated to and that are gone without warning, since Known
	Silent    []SilentAddress          // that do not answer as they should; by address
	Missing   []netip.Addr             // wanted and not held; sorted
	// Again is when something changes by itself; zero: nothing does.
	Again time.Time
}

// SilentAddress is one that nothing is delegated to, and why.
type SilentAddress struct {
	Address netip.Addr
	Why     error
}

// ToAsk returns the addresses to be asked before Addresses decides, sorted: those that zones may be delegated to once they answer.
func ToAsk(in AddressInputs) []netip.Addr {
	state := map[netip.Addr]v1alpha1.ServerAddressState{}
	for _, k := range in.Known {
		if a, err := netip.ParseAddr(string(k.Address)); err == nil {
			state[a.Unmap()] = k.State
		}
	}
	var ask []netip.Addr
	for _, a := range in.Wanted {
		if slices.Contains(in.Held, a) && state[a] != v1alpha1.ServerAddressDelegated {
			ask = append(ask, a)
		}
	}
	return sortAddresses(ask)
}

// Addresses moves every address to its next state:
//
//	(new)     -> Pending     the group has got it
//	Pending   -> Delegated   it answers
//	Delegated -> Leaving     it is not wanted any more, and zones are delegated to all that are
//	Delegated -> Lost        the group has it no more, and no other that zones are delegated to
//	Delegated -> (gone)      the group has it no more, and has others
//	Leaving   -> (gone)      no server has handed it out for TTL, or the group has it no more
//	Leaving   -> Delegated   it is wanted again, and answers
//	Lost      -> Delegated   it is back, and answers
//	Lost      -> (gone)      zones are delegated to another address of the group
//
// It is made before the one it replaces is broken: an address leaves only when every wanted one is Delegated.
func Addresses(in AddressInputs) AddressResult {
	var r AddressResult
	if in.Removed && in.Last {
		return r
	}
	next := map[netip.Addr]v1alpha1.ServerAddress{}
	for _, k := range in.Known {
		if a, err := netip.ParseAddr(string(k.Address)); err == nil {
			next[a.Unmap()] = k
		}
	}
	move := func(a netip.Addr, to v1alpha1.ServerAddressState) {
		next[a] = v1alpha1.ServerAddress{Address: v1alpha1.IP(a.String()), State: to, Since: metav1.NewTime(in.Now).Rfc3339Copy()}
	}
	wanted := in.Wanted
	if in.Removed {
		wanted = nil
	}
	complete := true // zones are delegated to all that is wanted
	for _, a := range sortAddresses(slices.Clone(wanted)) {
		k, known := next[a]
		held := slices.Contains(in.Held, a)
		answer, asked := in.Answers[a]
		switch {
		case !held:
			r.Missing = append(r.Missing, a)
		case k.State == v1alpha1.ServerAddressDelegated:
		case asked && answer == nil:
			move(a, v1alpha1.ServerAddressDelegated)
		default:
			if !known {
				move(a, v1alpha1.ServerAddressPending)
			}
			if asked {
				r.Silent = append(r.Silent, SilentAddress{a, answer})
			}
		}
		complete = complete && held && next[a].State == v1alpha1.ServerAddressDelegated
	}
	for a, k := range next {
		if k.State == v1alpha1.ServerAddressDelegated && !slices.Contains(in.Held, a) {
			delete(next, a)
			if !in.Removed {
				r.Lost = append(r.Lost, a)
			}
		}
	}
	r.Lost = sortAddresses(r.Lost)
	for a, k := range next {
		stays := slices.Contains(wanted, a)
		held := slices.Contains(in.Held, a)
		switch {
		case k.State == v1alpha1.ServerAddressDelegated && !stays && (in.Removed || complete && len(wanted) > 0):
			move(a, v1alpha1.ServerAddressLeaving)
		case k.State == v1alpha1.ServerAddressPending && (!stays || !held), k.State == v1alpha1.ServerAddressLeaving && !held:
			delete(next, a)
		}
	}
	r.keepLast(in, next, move)
	for a, k := range next {
		if k.State != v1alpha1.ServerAddressLeaving {
			continue
		}
		switch {
		case in.HandedOut[a]:
			k.Until = nil
		case k.Until == nil:
			until := metav1.NewTime(in.Now.Add(in.TTL + time.Second)).Rfc3339Copy() // whole seconds in the API: never too early
			k.Until = &until
		case !in.Now.Before(k.Until.Time):
			if !slices.Contains(wanted, a) {
				delete(next, a)
				continue
			}
			move(a, v1alpha1.ServerAddressPending)
			continue
		}
		next[a] = k
		if k.Until != nil && (r.Again.IsZero() || k.Until.Time.Before(r.Again)) {
			r.Again = k.Until.Time
		}
	}
	for _, k := range next {
		r.Addresses = append(r.Addresses, k)
	}
	slices.SortFunc(r.Addresses, func(a, b v1alpha1.ServerAddress) int {
		return parsed(a.Address).Compare(parsed(b.Address))
	})
	return r
}

// keepLast notes lost addresses for zones that would have none, as long as the group has no other; and lets go of them.
func (r *AddressResult) keepLast(in AddressInputs, next map[netip.Addr]v1alpha1.ServerAddress, move func(netip.Addr, v1alpha1.ServerAddressState)) {
	others := false
	for _, k := range next {
		others = others || k.State == v1alpha1.ServerAddressDelegated
	}
	if !others {
		for _, a := range r.Lost {
			move(a, v1alpha1.ServerAddressLost)
		}
	}
	for a, k := range next {
		if k.State != v1alpha1.ServerAddressLost || !others && !in.Removed {
			continue
		}
		if !in.Removed && slices.Contains(in.Wanted, a) && slices.Contains(in.Held, a) {
			move(a, v1alpha1.ServerAddressPending)
		} else {
			delete(next, a)
		}
	}
}

// parsed is an address as the API server has checked it; the zero Addr if it is none.
func parsed(a v1alpha1.IP) netip.Addr {
	addr, _ := netip.ParseAddr(string(a))
	return addr.Unmap()
}

func sortAddresses(list []netip.Addr) []netip.Addr {
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// addressesOf are the addresses of a server group that are in one of the states, sorted. Those of an External group are in
// its spec, and all of them are delegated to.
func addressesOf(dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup, states ...v1alpha1.ServerAddressState) []netip.Addr {
	var all []netip.Addr
	if g.Management != v1alpha1.ServerGroupManaged {
		for _, text := range g.Addresses {
			if a := parsed(text); a.IsValid() {
				all = append(all, a)
			}
		}
		return sortAddresses(all)
	}
	for _, k := range KnownAddresses(dc, g.Name) {
		if a := parsed(k.Address); a.IsValid() && slices.Contains(states, k.State) {
			all = append(all, a)
		}
	}
	return sortAddresses(all)
}

// WithAddresses returns the group with all its addresses in its spec: a Managed one has those of the status, in whatever state.
func WithAddresses(dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup) v1alpha1.ServerGroup {
	if g.Management == v1alpha1.ServerGroupManaged {
		g.Addresses = nil
		for _, k := range KnownAddresses(dc, g.Name) {
			g.Addresses = append(g.Addresses, k.Address)
		}
	}
	return g
}

// KnownAddresses is what the status says of the addresses of a Managed group.
func KnownAddresses(dc *v1alpha1.Datacenter, group string) []v1alpha1.ServerAddress {
	for _, g := range dc.Status.ServerGroups {
		if g.Name == group {
			return g.Addresses
		}
	}
	return nil
}

// LeavingGroups are the names of Managed groups of the datacenter that go, sorted: they are declared no more, or the datacenter
// is being deleted, and resolvers may still come to their addresses. Their servers are needed until then.
func LeavingGroups(dc *v1alpha1.Datacenter) []string {
	var names []string
	for _, g := range dc.Status.ServerGroups {
		declared := dc.DeletionTimestamp.IsZero() &&
			slices.ContainsFunc(dc.Spec.ServerGroups, func(s v1alpha1.ServerGroup) bool { return s.Name == g.Name })
		if !declared && len(g.Addresses) > 0 {
			names = append(names, g.Name)
		}
	}
	slices.Sort(names)
	return names
}

// AddressCondition says in words how far the addresses of a datacenter's groups are.
type AddressCondition struct {
	Is              bool
	Reason, Message string
}

// GroupAddresses is one Managed group for SumAddresses.
type GroupAddresses struct {
	Group  string
	Result AddressResult
	Wants  bool // there are addresses that it is to have
	// Waits says what has to come before there is an address; "" if that is not known.
	Waits string
	// Unknown says why the addresses can't be told now; "": they can.
	Unknown string
	Removed bool
}

// SumAddresses makes the condition AddressesReady of what is decided about a datacenter's Managed groups: the worst comes first.
func SumAddresses(groups []GroupAddresses) AddressCondition {
	worst := AddressCondition{true, v1alpha1.ReasonAddressesDelegated, "zones are delegated to every address that the groups are to have"}
	severity := 0
	note := func(n int, reason, format string, args ...any) {
		switch text := fmt.Sprintf(format, args...); {
		case n > severity:
			severity, worst = n, AddressCondition{false, reason, text}
		case n == severity:
			worst.Message += "; " + text
		}
	}
	for _, g := range groups {
		var lost []netip.Addr
		for _, a := range g.Result.Addresses {
			if a.State == v1alpha1.ServerAddressLost {
				lost = append(lost, parsed(a.Address))
			}
		}
		switch {
		case g.Unknown != "":
			note(3, v1alpha1.ReasonAddressesUnknown, "group %s: its addresses can't be told, what zones were delegated to stays: %s", g.Group, g.Unknown)
		case len(lost) > 0:
			note(4, v1alpha1.ReasonAddressLost, "group %s has lost its last address without warning; a zone that has no other stays delegated to %s: give the group an address again, or move its zones",
				g.Group, joinAddresses(lost))
		case len(g.Result.Silent) > 0:
			for _, s := range g.Result.Silent {
				note(2, v1alpha1.ReasonAddressSilent, "group %s: nothing is delegated to %s, it does not answer the manager: %v", g.Group, s.Address, s.Why)
			}
		case g.Removed:
		case len(g.Result.Missing) > 0:
			note(1, v1alpha1.ReasonNoAddress, "group %s has not got %s%s", g.Group, joinAddresses(g.Result.Missing), because(g.Waits))
		case !g.Wants:
			note(1, v1alpha1.ReasonNoAddress, "group %s has no address yet%s", g.Group, because(g.Waits))
		}
	}
	return worst
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func joinAddresses(list []netip.Addr) string {
	all := make([]string, len(list))
	for i, a := range list {
		all[i] = a.String()
	}
	return strings.Join(all, ", ")
}
