package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// noted counts events by reason and the object that they are of, if that is no DynamicRecord, and keeps the last text.
type noted struct {
	counts map[string]int
	texts  map[string]string
}

func (n *noted) Eventf(about, _ runtime.Object, kind, reason, _, text string, args ...any) {
	o, err := meta.Accessor(about)
	if err != nil {
		panic(err)
	}
	key := kind + " " + reason
	if _, is := about.(*v1alpha1.DynamicRecord); !is {
		key += " " + o.GetName()
	}
	n.counts[key]++
	n.texts[key] = fmt.Sprintf(text, args...)
}

// anyDatacenter reads every Datacenter whose name begins with dc-, and every TrafficOverride.
type anyDatacenter struct{ client.Reader }

func (anyDatacenter) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if _, is := o.(*v1alpha1.TrafficOverride); !is && !strings.HasPrefix(key.Name, "dc-") {
		return fmt.Errorf("there is no Datacenter %s", key.Name)
	}
	o.SetName(key.Name)
	return nil
}

func TestAMassFlipIsOneEventForEachDatacenter(t *testing.T) {
	status := func(serving, typ, reason string, is metav1.ConditionStatus) v1alpha1.DynamicRecordStatus {
		return v1alpha1.DynamicRecordStatus{Serving: serving, Conditions: []metav1.Condition{{Type: typ, Status: is, Reason: reason, Message: "words"}}}
	}
	healthy := func(serving string) v1alpha1.DynamicRecordStatus {
		return status(serving, v1alpha1.ConditionHealthy, "TargetsDown", metav1.ConditionFalse)
	}
	down := func() v1alpha1.DynamicRecordStatus {
		return status("dc-a", v1alpha1.ConditionHealthy, "AllDown", metav1.ConditionFalse)
	}
	tied := status("dc-a", v1alpha1.ConditionVantageDisagreement, "Tie", metav1.ConditionTrue)
	overridden := func(by string) v1alpha1.DynamicRecordStatus {
		s := status("dc-a", v1alpha1.ConditionOverridden, "Override", metav1.ConditionTrue)
		s.Override = by
		return s
	}
	ready := status("dc-a", v1alpha1.ConditionReady, "Ready", metav1.ConditionTrue)
	for sentence, c := range map[string]struct {
		before, after v1alpha1.DynamicRecordStatus
		n             int
		every         time.Duration
		want          map[string]int
	}{
		"a few names that move are told one by one": {healthy("dc-a"), healthy("dc-b"), 10, 0, map[string]int{"Normal Moved": 10}},
		"of many the datacenters only":              {healthy("dc-a,dc-b"), healthy("dc-b"), 5000, 0, map[string]int{"Warning MassMove dc-a": 1}},
		"also if writing their statuses takes a minute": {healthy("dc-a"), healthy("dc-b"), 5000, 12 * time.Millisecond,
			map[string]int{"Warning MassMove dc-a": 1, "Normal MassMove dc-b": 1}},
		"so are many that come back":                      {healthy("dc-b"), healthy("dc-a,dc-b"), 100, 0, map[string]int{"Normal MassMove dc-a": 1}},
		"names that move now and then are told":           {healthy("dc-a"), healthy("dc-b"), 50, 2 * time.Second, map[string]int{"Normal Moved": 50}},
		"of pools without a datacenter one name is told":  {healthy("blue"), healthy("green"), 100, 0, map[string]int{"Normal Moved": 1}},
		"all down is told":                                {healthy("dc-a"), down(), 1, 0, map[string]int{"Warning AllDown": 1}},
		"and its end":                                     {down(), healthy("dc-a"), 1, 0, map[string]int{"Normal TargetsDown": 1}},
		"of many the datacenters of their pools":          {healthy("dc-a"), down(), 1000, 0, map[string]int{"Warning AllDown dc-a": 1, "Warning AllDown dc-b": 1}},
		"so are ties":                                     {healthy("dc-a"), tied, 1000, 0, map[string]int{"Warning Tie dc-a": 1, "Warning Tie dc-b": 1}},
		"what an override does to many is the override's": {ready, overridden("ops/drain"), 1000, 0, map[string]int{"Normal Override drain": 1}},
		"that of a server has no object: datacenters are told": {ready, overridden("local/drain"), 1000, 0,
			map[string]int{"Normal Override dc-a": 1, "Normal Override dc-b": 1}},
		"the first status that is written moves nothing": {healthy(""), healthy("dc-a"), 100, 0, map[string]int{}},
		"nothing is told of what stays":                  {overridden("ops/drain"), overridden("ops/drain"), 100, 0, map[string]int{}},
	} {
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				recorder := &noted{map[string]int{}, map[string]string{}}
				e := &steeringEvents{Recorder: recorder, Client: anyDatacenter{}}
				for i := range c.n {
					o := &v1alpha1.DynamicRecord{Spec: v1alpha1.DynamicRecordSpec{Pools: []v1alpha1.Pool{{Name: "a", Datacenter: "dc-a"}, {Name: "b", Datacenter: "dc-b"}}}}
					o.Namespace, o.Name = "n", fmt.Sprint("r", i)
					e.record(o, c.before, c.after)
					time.Sleep(c.every)
				}
				time.Sleep(massGather)
				synctest.Wait()
				if !maps.Equal(recorder.counts, c.want) {
					t.Errorf("events are %v, wanted %v; %v", recorder.counts, c.want, slices.Collect(maps.Values(recorder.texts)))
				}
			})
		})
	}
}
