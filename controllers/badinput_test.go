package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// TestBadInputIsToldWhatToDo applies what users get wrong: each is refused when it is applied, or by a condition, in words
// that say what to do; and none of it touches the record beside it.
func TestBadInputIsToldWhatToDo(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, _, _ := e.startSteered("  steering: {policy: Nearest}\n")
	e.awaitRecord(columns("2/2", "dc-a,dc-b"))
	record := func(more string) string {
		return `
apiVersion: fingerpost.dev/v1alpha1
kind: DynamicRecord
metadata: {name: NAME, namespace: payments}
spec:
  zoneRef: {name: corp, namespace: dns-root}
  host: NAME
` + more
	}
	probe := func(more string) string {
		return "\napiVersion: fingerpost.dev/v1alpha1\nkind: HealthProbe\nmetadata: {name: NAME, namespace: payments}\nspec: {type: TCP, tcp: {port: 1}, " + more + "}\n"
	}
	override := func(more string) string {
		return "\napiVersion: fingerpost.dev/v1alpha1\nkind: TrafficOverride\nmetadata: {name: NAME, namespace: payments}\nspec: {" + more + "}\n"
	}
	const later = `expires: "2099-12-01T04:00:00Z"`
	kinds := map[string]func() (client.Object, func() []metav1.Condition){
		"DynamicRecord": func() (client.Object, func() []metav1.Condition) {
			o := &v1alpha1.DynamicRecord{}
			return o, func() []metav1.Condition { return o.Status.Conditions }
		},
		"HealthProbe": func() (client.Object, func() []metav1.Condition) {
			o := &v1alpha1.HealthProbe{}
			return o, func() []metav1.Condition { return o.Status.Conditions }
		},
		"TrafficOverride": func() (client.Object, func() []metav1.Condition) {
			o := &v1alpha1.TrafficOverride{}
			return o, func() []metav1.Condition { return o.Status.Conditions }
		},
	}
	n := 0
	for sentence, c := range map[string]struct {
		doc, applying  string // what is said when it is applied; "": it is taken
		typ, condition string // "": Accepted=False with these words
	}{
		"a target is an address or a name":    {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: [{address: \"10.1.9\"}]}]"), applying: "must be an IP address such as 10.1.9.9"},
		"a pool has not both":                 {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: [{address: 10.1.9.9}, {address: cdn.example.net}]}]"), applying: "targets must be all addresses or all names"},
		"a weight is not negative":            {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, weight: -1, targets: [{address: 10.1.9.9}]}]"), applying: "should be greater than or equal to 0"},
		"nor is that of a target":             {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: [{address: 10.1.9.9, weight: -1}]}]"), applying: "should be greater than or equal to 0"},
		"a pool has targets":                  {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: []}]"), applying: "should have at least 1 items"},
		"a record has pools":                  {doc: record("  steering: {policy: Weighted}\n  pools: []"), applying: "should have at least 1 items"},
		"a probe exists":                      {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: [{address: 10.1.9.9}]}]\n  probeRef: {name: none}"), condition: `there is no HealthProbe "none" in namespace "payments"`},
		"a pool's Datacenter exists":          {doc: record("  steering: {policy: Nearest}\n  pools: [{name: a, datacenter: dc-z, targets: [{address: 10.1.9.9}]}]"), condition: `there is no Datacenter "dc-z"`},
		"a target is not the record":          {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, targets: [{address: NAME.corp}]}]"), condition: "is the record itself"},
		"no more targets must be up than are": {doc: record("  steering: {policy: Weighted}\n  pools: [{name: a, minHealthy: 2, targets: [{address: 10.1.9.9}]}]"), applying: "minHealthy must not be above the number of targets"},
		"a threshold is at least 1":           {doc: probe("failureThreshold: 0"), applying: "should be greater than or equal to 1"},
		"and not beyond reason":               {doc: probe("successThreshold: 101"), applying: "should be less than or equal to 100"},
		"a timeout is below the interval":     {doc: probe("interval: 2s, timeout: 2s"), applying: "timeout must be below interval"},
		"an override selects something":       {doc: override(`action: Freeze, records: {names: [none]}, ` + later), condition: `there is no DynamicRecord "none" in namespace "payments"`},
		"by labels too":                       {doc: override(`action: Freeze, records: {selector: {matchLabels: {tier: tin}}}, ` + later), condition: "no DynamicRecord of namespace payments is selected"},
		"a place that something has":          {doc: override(`action: Drain, drain: {datacenter: dc-z}, ` + later), condition: "has datacenter dc-z"},
		"an override leaves keepAtLeast": {doc: override(`action: Drain, drain: {datacenter: dc-b}, keepAtLeast: 2, records: {names: [app]}, ` + later),
			typ: v1alpha1.ConditionDegraded, condition: "it does nothing for 1 record, e.g. payments/app: "},
		"an override ends in the future": {doc: override(`action: Freeze, expires: "2020-01-01T00:00:00Z"`), condition: "the override ended at 2020-01-01T00:00:00Z: give a later expires, or delete it"},
	} {
		n++
		name := fmt.Sprint("bad-", n)
		t.Run(sentence, func(t *testing.T) {
			doc := strings.ReplaceAll(c.doc, "NAME", name)
			err := e.tryApply(doc)
			if c.applying != "" {
				if err == nil || !strings.Contains(err.Error(), c.applying) {
					t.Errorf("applying says %v, wanted %s", err, c.applying)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, kind, _ := strings.Cut(doc, "kind: ")
			o, conditions := kinds[strings.SplitN(kind, "\n", 2)[0]]()
			typ, status := v1alpha1.ConditionAccepted, metav1.ConditionFalse
			if c.typ != "" {
				typ, status = c.typ, metav1.ConditionTrue
			}
			e.poll(func() error {
				if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: name}, o); err != nil {
					return err
				}
				if got := meta.FindStatusCondition(conditions(), typ); got == nil || got.Status != status || !strings.Contains(got.Message, c.condition) {
					return fmt.Errorf("condition %s is %+v", typ, got)
				}
				return nil
			})
			if err := e.api.Delete(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	e.awaitRecord(columns("2/2", "dc-a,dc-b"))
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
}
