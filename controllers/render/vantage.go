package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// vantage says in a few words how servers of a datacenter see the others: how many see all and are believed, of how many
// that told; then what is wrong with the rest. Empty: none has told.
func vantage(servers []DatacenterServer) string {
	told, sound := 0, 0
	isolated, sick := false, false
	var unheard []string
	for _, srv := range servers {
		v := srv.Vantage
		if v == nil {
			continue
		}
		told++
		switch {
		case v.GetIsolated():
			isolated = true
		case v.GetSick():
			sick = true
		case len(v.GetUnreachable()) > 0:
			unheard = append(unheard, v.GetUnreachable()...)
		default:
			sound++
		}
	}
	var words string
	switch {
	case told == 0:
		return ""
	case isolated:
		words = "Isolated"
	case sick:
		words = "Sick"
	case len(unheard) > 0:
		slices.Sort(unheard)
		words = "can't see " + strings.Join(slices.Compact(unheard), ",")
	default:
		return fmt.Sprintf("%d/%d", sound, told)
	}
	if sound > 0 {
		words = fmt.Sprintf("%d/%d %s", sound, told, words)
	}
	return clip(words, 64)
}

// breakGlass describes the overrides in force that were made at servers, and when the first of them ends.
func breakGlass(servers []DatacenterServer, now time.Time) (text string, until time.Time) {
	inForce := map[string]*steeringpb.Override{}
	for _, srv := range servers {
		for _, o := range srv.Vantage.GetLocal() {
			ends := time.UnixMilli(int64(o.GetExpires()))
			if !ends.After(now) {
				continue
			}
			if known := inForce[o.GetSource()]; known == nil || known.GetCreated() < o.GetCreated() {
				inForce[o.GetSource()] = o
			}
			if until.IsZero() || ends.Before(until) {
				until = ends
			}
		}
	}
	texts := make([]string, 0, len(inForce))
	for _, source := range sortedKeys(inForce) {
		o := inForce[source]
		words := fmt.Sprintf("%s (%s) until %s", source, localAction(o), time.UnixMilli(int64(o.GetExpires())).UTC().Format(time.RFC3339))
		if o.GetReason() != "" {
			words += ": " + o.GetReason()
		}
		texts = append(texts, words)
	}
	return strings.Join(texts, "; "), until
}

// localAction says what an override does, e.g. drain dc-b.
func localAction(o *steeringpb.Override) string {
	place := func(action string, parts ...string) string {
		for _, p := range parts {
			if p != "" {
				action += " " + p
			}
		}
		return action
	}
	var action string
	switch {
	case o.GetDrain() != nil:
		action = place("drain", o.GetDrain().GetDatacenter(), o.GetDrain().GetPool(), o.GetDrain().GetTarget())
	case o.GetForce() != nil:
		action = place("force", o.GetForce().GetDatacenter(), o.GetForce().GetPool(), o.GetForce().GetTarget())
	case o.GetFreeze() != nil:
		action = "freeze"
	case o.GetFailback() != nil:
		action = "failback"
	case o.GetRaiseTtl() != nil:
		action = fmt.Sprintf("raise TTL to %ds", o.GetRaiseTtl().GetTtl())
	case o.GetBlock() != nil:
		action = "block " + strings.Join(o.GetBlock().GetNetworks(), ",")
	}
	records := "all records"
	if !o.GetAllRecords() {
		records = cmp.Or(strings.Join(o.GetRecords(), ","), "no record")
	}
	return action + " for " + records
}
