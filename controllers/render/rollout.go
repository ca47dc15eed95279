package render

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ServerPod is what there is to know of the pod of one server of a Managed group.
type ServerPod struct {
	Name     string
	Ordinal  int
	Outdated bool      // it is not as the StatefulSet is now
	Ready    bool      // and not terminating
	Ending   bool      // terminating
	Current  bool      // its server is connected, and serves the published version of all its zones under its settings
	Leaving  time.Time // since when clients are not sent to it, because it is to go; zero: they are
	// Delegated: clients are referred to addresses that no server has but those that leave.
	Delegated bool
}

// NextRestart returns the pod to be restarted next so that all become as the StatefulSet is; "" if there is none, or not
// yet: waiting says for what. One that does not answer comes first, for nobody misses it. Otherwise every other one
// must be ready and current: each restart takes one server at most from those who answer.
func NextRestart(pods []ServerPod, replicas int) (name, waiting string) {
	sorted := slices.SortedFunc(slices.Values(pods), func(a, b ServerPod) int { return b.Ordinal - a.Ordinal })
	outdated := slices.ContainsFunc(sorted, func(p ServerPod) bool { return p.Outdated })
	if !outdated {
		return "", ""
	}
	for _, p := range sorted {
		if p.Ending {
			return "", p.Name + " ends"
		}
	}
	if len(pods) < replicas {
		return "", fmt.Sprintf("%d of %d pods are there", len(pods), replicas)
	}
	for _, p := range sorted {
		if p.Outdated && !p.Ready {
			return p.Name, ""
		}
	}
	for _, p := range sorted {
		switch {
		case !p.Ready:
			return "", p.Name + " is not ready"
		case !p.Current && !p.Outdated:
			return "", p.Name + " is not connected with every zone current"
		}
	}
	for _, p := range sorted { // the others have to do without it
		others := func(o ServerPod) bool { return o.Name != p.Name && !o.Current }
		if p.Outdated && !slices.ContainsFunc(sorted, others) {
			return p.Name, ""
		}
	}
	var behind []string
	for _, p := range sorted {
		if !p.Current {
			behind = append(behind, p.Name)
		}
	}
	return "", strings.Join(behind, ", ") + ": not connected with every zone current"
}

// leaveDelay is how long a server is out of its Service before it may end: kube-proxy and load balancers follow by then.
const leaveDelay = 10 * time.Second

// Departure is what becomes of a group that has more servers than it is to have.
type Departure struct {
	Replicas int      // that there are to be now
	Withdraw []string // pods to which no client is to be sent any more
	Return   []string // pods to which clients may be sent again
	Again    time.Duration
	Waiting  string // what for; "": nothing
}

// Leave decides how a group gets from the servers that it has to those that are declared. Servers that leave are taken out
// of the Service first, and end when nobody is referred to them any more. More servers come at once.
func Leave(declared, running int, pods []ServerPod, now time.Time) Departure {
	d := Departure{Replicas: declared}
	for _, p := range pods {
		if p.Ordinal < declared && !p.Leaving.IsZero() {
			d.Return = append(d.Return, p.Name)
		}
	}
	if declared >= running {
		return d
	}
	var staying []string
	for _, p := range pods {
		if p.Ordinal < declared || p.Ending {
			continue
		}
		switch wait := leaveDelay - now.Sub(p.Leaving); {
		case p.Leaving.IsZero():
			d.Withdraw = append(d.Withdraw, p.Name)
			d.Again = leaveDelay
		case p.Delegated:
			staying = append(staying, p.Name)
		case wait > 0:
			d.Again = max(d.Again, wait)
		}
	}
	switch {
	case len(staying) > 0:
		slices.Sort(staying)
		d.Waiting = strings.Join(staying, ", ") + " leaves when resolvers have forgotten its addresses"
	case d.Again > 0:
		d.Waiting = "servers leave"
	default:
		return d
	}
	d.Replicas = running
	return d
}
