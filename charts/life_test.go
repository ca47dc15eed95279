package charts_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

const (
	hierarchyValues = chart + "/ci/hierarchy-values.yaml"
	account         = "system:serviceaccount:" + namespace + ":fingerpost-manager"
)

// TestLife installs, upgrades, rolls back and uninstalls. The first install brings the kinds and objects of them.
func TestLife(t *testing.T) {
	for _, helm := range helms {
		t.Run(helm, func(t *testing.T) {
			plane, api := startCluster(t)
			r := &release{t: t, helm: helm, plane: plane, api: api}
			r.runJobs()

			r.do("install", "--create-namespace", "--values", hierarchyValues)
			r.expectDeployment(2)
			kept := r.identities()
			if len(kept) != 3 {
				t.Fatalf("there are %v, wanted two Datacenters and a zone", kept)
			}

			changed := []string{"--values", hierarchyValues, "--set", "replicas=3", "--set", "datacenters.dc-a.region=east"}
			r.do("upgrade", changed...)
			r.expectDeployment(3)
			r.expectRegion("east")

			var dc v1alpha1.Datacenter // an administrator approves something
			r.get("dc-a", &dc)
			dc.Annotations = map[string]string{"fingerpost.dev/approve-removal": "b5c2"}
			if err := api.Update(t.Context(), &dc); err != nil {
				t.Fatal(err)
			}
			r.do("upgrade", append(changed, "--set", "datacenters.dc-a.region=west")...)
			r.expectRegion("west")
			if r.get("dc-a", &dc); dc.Annotations["fingerpost.dev/approve-removal"] != "b5c2" {
				t.Errorf("an annotation of others is gone: %v", dc.Annotations)
			}

			r.do("rollback", "2")
			r.expectRegion("east")
			r.do("rollback", "1")
			r.expectDeployment(2)
			r.expectRegion("north")
			r.expectKept(kept)

			r.do("upgrade", "--values", hierarchyValues, "--set", "datacenters.dc-b=null", "--set", "rootZone.enabled=false")
			r.expectKept(kept) // none of what servers answer from goes because it is missing in a file

			var secrets corev1.SecretList
			if err := api.List(t.Context(), &secrets, client.InNamespace(namespace), client.MatchingLabels{"owner": "helm"}); err != nil {
				t.Fatal(err)
			}
			for _, s := range secrets.Items {
				if size := len(s.Data["release"]); size > 512<<10 {
					t.Errorf("Secret %s of the release has %d octets, of 1 MiB that etcd takes", s.Name, size)
				}
			}

			t.Run("what it renders conforms", func(t *testing.T) { conform(t, plane.Config()) })

			r.do("uninstall")
			r.expectKept(kept)
			if diff := cmp.Diff([]string{
				"CustomResourceDefinition/datacenters.fingerpost.dev", "CustomResourceDefinition/dnszones.fingerpost.dev",
				"CustomResourceDefinition/dynamicrecords.fingerpost.dev", "CustomResourceDefinition/healthprobes.fingerpost.dev",
				"CustomResourceDefinition/resolverpools.fingerpost.dev", "CustomResourceDefinition/trafficoverrides.fingerpost.dev",
				"DNSZone/root", "Datacenter/dc-a", "Datacenter/dc-b", "Namespace/dns-root",
			}, r.labelled()); diff != "" {
				t.Errorf("after uninstalling:\n%s", diff)
			}

			r.do("install", "--values", hierarchyValues, "--set", "datacenters.dc-a.region=west")
			r.expectKept(kept) // by a release that takes the kinds in again
			r.expectRegion("west")
			if _, err := r.try("upgrade", "--values", hierarchyValues, "--set", "datacenters.dc-b.networks={10.1.0.0}"); err == nil {
				t.Error("the API server refuses a network without bits, and Helm is content")
			}
			if left := r.labelled(); slices.Contains(left, "ClusterRole/fingerpost-hierarchy") {
				t.Errorf("a Job that failed has left its rights: %v", left)
			}
		})
	}
}

// release is the chart in a cluster.
type release struct {
	t     *testing.T
	helm  string
	plane *controlplane.ControlPlane
	api   client.WithWatch
}

// do calls Helm for the release.
func (r *release) do(command string, args ...string) {
	r.t.Helper()
	if _, err := r.try(command, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *release) try(command string, args ...string) (string, error) {
	r.t.Helper()
	line := []string{command, "fingerpost"}
	if command == "install" || command == "upgrade" {
		line = append(line, chart)
	}
	return tool(r.t, r.plane.Kubeconfig(), r.helm, append(append(line, args...), "--namespace", namespace)...)
}

// runJobs does until the test ends what nodes do with Jobs: it runs the program as the ServiceAccount.
func (r *release) runJobs() {
	r.t.Helper()
	manager := program(r.t, "manager")
	watch, err := r.api.Watch(r.t.Context(), &batchv1.JobList{}, client.InNamespace(namespace))
	if err != nil {
		r.t.Fatal(err)
	}
	var done sync.WaitGroup
	r.t.Cleanup(func() { watch.Stop(); done.Wait() })
	dir, ran := r.t.TempDir(), map[types.UID]bool{}
	done.Go(func() {
		for event := range watch.ResultChan() {
			job, ok := event.Object.(*batchv1.Job)
			if !ok || ran[job.UID] {
				continue
			}
			ran[job.UID] = true
			if err := r.runJob(job, manager, dir); err != nil && r.t.Context().Err() == nil {
				r.t.Error(err)
			}
		}
	})
}

// runJob runs the one container of a Job, with its one volume in dir.
func (r *release) runJob(job *batchv1.Job, manager, dir string) error {
	pod := job.Spec.Template.Spec
	container, mount := pod.Containers[0], pod.Containers[0].VolumeMounts[0]
	if container.Command[0] != "/manager" {
		return fmt.Errorf("the Job runs %v", container.Command)
	}
	var content corev1.ConfigMap
	if err := r.api.Get(r.t.Context(), client.ObjectKey{Namespace: namespace, Name: pod.Volumes[0].ConfigMap.Name}, &content); err != nil {
		return err
	}
	for name, text := range content.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	admitted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: job.Name, Labels: job.Spec.Template.Labels}, Spec: pod}
	if err := r.api.Create(r.t.Context(), admitted, client.DryRunAll); err != nil {
		return fmt.Errorf("the pod of the Job: %w", err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := r.plane.WriteKubeconfig(kubeconfig, "system:serviceaccount:"+namespace+":"+pod.ServiceAccountName); err != nil {
		return err
	}
	var args []string
	for _, a := range container.Command[1:] {
		args = append(args, strings.Replace(a, mount.MountPath, dir, 1))
	}
	cmd := exec.CommandContext(r.t.Context(), manager, args...)
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig}
	out, err := cmd.CombinedOutput()
	now := metav1.Now()
	if err != nil {
		job.Status = batchv1.JobStatus{
			StartTime: &now, Failed: 1, UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{},
			Conditions: []batchv1.JobCondition{
				{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, LastTransitionTime: now, Message: string(out)},
				{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: now, Message: string(out)},
			},
		}
	} else {
		job.Status = batchv1.JobStatus{
			StartTime: &now, CompletionTime: &now, Succeeded: 1, UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{},
			Conditions: []batchv1.JobCondition{
				{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now},
				{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now},
			},
		}
	}
	return r.api.Status().Update(r.t.Context(), job)
}

func (r *release) get(name string, object client.Object) {
	r.t.Helper()
	if err := r.api.Get(r.t.Context(), client.ObjectKey{Namespace: object.GetNamespace(), Name: name}, object); err != nil {
		r.t.Fatal(err)
	}
}

func (r *release) expectDeployment(replicas int32) {
	r.t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
	if r.get("fingerpost-manager", d); *d.Spec.Replicas != replicas {
		r.t.Errorf("%d managers, wanted %d", *d.Spec.Replicas, replicas)
	}
}

func (r *release) expectRegion(region string) {
	r.t.Helper()
	var dc v1alpha1.Datacenter
	if r.get("dc-a", &dc); dc.Spec.Region != region {
		r.t.Errorf("region %s of dc-a, wanted %s", dc.Spec.Region, region)
	}
}

// identities returns the UIDs of Datacenters and zones: who has another one was deleted in between.
func (r *release) identities() map[string]types.UID {
	r.t.Helper()
	var datacenters v1alpha1.DatacenterList
	var zones v1alpha1.DNSZoneList
	if err := errors.Join(r.api.List(r.t.Context(), &datacenters), r.api.List(r.t.Context(), &zones)); err != nil {
		r.t.Fatal(err)
	}
	uids := map[string]types.UID{}
	for _, dc := range datacenters.Items {
		uids["Datacenter/"+dc.Name] = dc.UID
	}
	for _, z := range zones.Items {
		uids["DNSZone/"+z.Name] = z.UID
	}
	return uids
}

func (r *release) expectKept(want map[string]types.UID) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.identities()); diff != "" {
		r.t.Errorf("objects were deleted or made again:\n%s", diff)
	}
}

// labelled returns KIND/NAME of all objects that the release made and that are there, sorted.
func (r *release) labelled() []string {
	r.t.Helper()
	api, err := discovery.NewDiscoveryClientForConfig(r.plane.Config())
	if err != nil {
		r.t.Fatal(err)
	}
	lists, err := api.ServerPreferredResources()
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[string]bool{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") {
				continue
			}
			objects := &unstructured.UnstructuredList{}
			objects.SetGroupVersionKind(version.WithKind(resource.Kind + "List"))
			if err := r.api.List(context.WithoutCancel(r.t.Context()), objects, client.MatchingLabels{"app.kubernetes.io/part-of": "fingerpost"}); err != nil {
				r.t.Fatalf("%s: %v", resource.Kind, err)
			}
			for _, o := range objects.Items {
				found[o.GetKind()+"/"+o.GetName()] = true
			}
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
