package controllers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// steeringEvents makes Events of what changes about steered names. They wait for massGather: of a mass flip there is then one
// Event for each datacenter, and none for a record.
type steeringEvents struct {
	Recorder events.EventRecorder
	Client   client.Reader // cached

	mu     sync.Mutex
	crowds map[string]*crowd // by what their events are alike in
}

// crowd is what happened to records within massGather, all of it alike, and when there was last too much of it.
type crowd struct {
	waiting []steeringEvent // massMoves+1 at most: more say no more
	count   int             // of all
	// about are what is told of if there are many: objects by kind and name, with the type of the Event.
	about map[string]massEvent
	many  time.Time // when there were many, last
	told  time.Time // when that was told, last
}

// steeringEvent is what happened to one record.
type steeringEvent struct {
	record                *v1alpha1.DynamicRecord
	kind, reason, message string
}

// massEvent is what is told once for many records.
type massEvent struct {
	object       client.Object
	kind, reason string
}

const (
	massGather = 2 * time.Second
	massMoves  = 10               // more within massGather are told as one
	massWindow = 10 * time.Second // those that follow many within it belong to them
	massAgain  = 5 * time.Minute
)

// tell notes what happened to a record. about are the objects that are told of if it happened to many.
func (e *steeringEvents) tell(alike string, event steeringEvent, about ...massEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.crowds == nil {
		e.crowds = map[string]*crowd{}
	}
	maps.DeleteFunc(e.crowds, func(_ string, c *crowd) bool { return c.count == 0 && now.Sub(c.told) > massAgain })
	c := e.crowds[alike]
	if c == nil {
		c = &crowd{about: map[string]massEvent{}}
		e.crowds[alike] = c
	}
	if c.count++; c.count == 1 {
		time.AfterFunc(massGather, func() { e.flush(c) })
	}
	if len(c.waiting) <= massMoves {
		c.waiting = append(c.waiting, event)
	}
	for _, m := range about {
		c.about[fmt.Sprintf("%T %s/%s", m.object, m.object.GetNamespace(), m.object.GetName())] = m
	}
}

// flush tells what has gathered.
func (e *steeringEvents) flush(c *crowd) {
	e.mu.Lock()
	now := time.Now()
	waiting, about := c.waiting, c.about
	c.waiting, c.about = nil, map[string]massEvent{}
	many := c.count > massMoves
	alone := !many && now.Sub(c.many) > massWindow
	if many {
		c.many = now
	}
	once := many && now.Sub(c.told) > massAgain
	if once {
		c.told = now
	}
	c.count = 0
	e.mu.Unlock()
	switch {
	case alone:
		for _, w := range waiting {
			e.Recorder.Eventf(w.record, nil, w.kind, w.reason, "Steer", "%s", note(w.message))
		}
	case once:
		e.tellMany(waiting[0], about)
	}
}

// tellMany tells of many events like one.
func (e *steeringEvents) tellMany(one steeringEvent, about map[string]massEvent) {
	told := false
	for _, key := range slices.Sorted(maps.Keys(about)) {
		m := about[key]
		if e.Client.Get(context.Background(), client.ObjectKeyFromObject(m.object), m.object) != nil {
			continue // there is none: a pool need not have a datacenter, and a break-glass override has no object
		}
		told = true
		e.Recorder.Eventf(m.object, nil, m.kind, m.reason, "Steer", "%s", note(fmt.Sprintf(
			"more than %d names at once, such as DynamicRecord %s: %s; kubectl get dynamicrecords -A shows which",
			massMoves, client.ObjectKeyFromObject(one.record), one.message)))
	}
	if !told {
		e.Recorder.Eventf(one.record, nil, one.kind, one.reason, "Steer", "%s", note(fmt.Sprintf(
			"more than %d names at once, this one among them; kubectl get dynamicrecords -A shows which: %s", massMoves, one.message)))
	}
}

// record tells of the transitions of one record.
func (e *steeringEvents) record(o *v1alpha1.DynamicRecord, before, after v1alpha1.DynamicRecordStatus) {
	if before.Serving != after.Serving && before.Serving != "" {
		e.moved(o, before.Serving, after.Serving)
	}
	changed := func(kind string, c metav1.Condition) {
		event := steeringEvent{o, kind, c.Reason, c.Message}
		var about []massEvent
		namespace, name, _ := strings.Cut(cmp.Or(after.Override, before.Override), "/")
		if c.Type == v1alpha1.ConditionOverridden && namespace != "local" {
			object := &v1alpha1.TrafficOverride{}
			object.Namespace, object.Name = namespace, name
			e.tell(kind+c.Reason+namespace+"/"+name, event, massEvent{object, kind, c.Reason})
			return
		}
		for _, p := range o.Spec.Pools {
			if p.Datacenter != "" {
				about = append(about, massEvent{datacenterNamed(string(p.Datacenter)), kind, c.Reason})
			}
		}
		e.tell(kind+c.Reason, event, about...)
	}
	for _, c := range after.Conditions {
		old := meta.FindStatusCondition(before.Conditions, c.Type)
		trouble := metav1.ConditionTrue
		switch c.Type {
		case v1alpha1.ConditionHealthy:
			grave := func(c *metav1.Condition) bool {
				return c != nil && (c.Reason == reasonAllDown || c.Reason == v1alpha1.ReasonHeld)
			}
			switch {
			case grave(&c) && (old == nil || old.Reason != c.Reason):
				changed(corev1.EventTypeWarning, c)
			case !grave(&c) && grave(old):
				changed(corev1.EventTypeNormal, c)
			}
			continue
		case v1alpha1.ConditionAccepted, v1alpha1.ConditionRTOFeasible:
			trouble = metav1.ConditionFalse
		case v1alpha1.ConditionAwaitingApproval, v1alpha1.ConditionOverridden, v1alpha1.ConditionSplitRisk, v1alpha1.ConditionVantageDisagreement:
		default:
			continue
		}
		switch {
		case c.Status == trouble && (old == nil || old.Status != trouble || old.Reason != c.Reason):
			kind := corev1.EventTypeWarning
			if c.Type == v1alpha1.ConditionOverridden {
				kind = corev1.EventTypeNormal
			}
			changed(kind, c)
		case c.Status != trouble && old != nil && old.Status == trouble:
			changed(corev1.EventTypeNormal, c)
		}
	}
}

const reasonAllDown = "AllDown"

func datacenterNamed(name string) *v1alpha1.Datacenter {
	dc := &v1alpha1.Datacenter{}
	dc.Name = name
	return dc
}

// moved tells that a record's answers moved; of many moves of one kind, each datacenter that they left or came to is told.
func (e *steeringEvents) moved(o *v1alpha1.DynamicRecord, from, to string) {
	what := from + " to " + cmp.Or(to, "nothing")
	before, after := strings.Split(from, ","), strings.Split(to, ",")
	var about []massEvent
	for _, name := range append(slices.Clone(before), after...) {
		left, came := !slices.Contains(after, name), !slices.Contains(before, name)
		switch {
		case name == "" || !left && !came:
		case left:
			about = append(about, massEvent{datacenterNamed(name), corev1.EventTypeWarning, "MassMove"})
		default:
			about = append(about, massEvent{datacenterNamed(name), corev1.EventTypeNormal, "MassMove"})
		}
	}
	e.tell("moved "+what, steeringEvent{o, corev1.EventTypeNormal, "Moved", "answers moved from " + what}, about...)
}
