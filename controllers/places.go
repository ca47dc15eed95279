package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// Place is a namespace of a cluster in which servers run, and members of pools.
type Place struct {
	Client    client.Client // reads and writes without a cache
	Namespace string
	Remote    bool // the cluster is not the operator's own
	Own       bool // it is the operator's own namespace
}

// Places knows where the servers of each Datacenter run. It has a client for each such place as long as a Datacenter is
// there, and watches what the operator has made there. A kubeconfig that changes is in use when Of is called the next time.
type Places struct {
	Config    *rest.Config  // of the operator's own cluster
	Secrets   client.Reader // live, for kubeconfigs
	Namespace string        // the operator's own
	// Changed and PoolsChanged are called with the name of a Datacenter when something changes that was made for its servers,
	// or for members of pools there. They do not block.
	Changed, PoolsChanged func(datacenter string)
	Log                   logr.Logger

	mu   sync.Mutex
	open map[placeKey]*openPlace
	used map[string]placeKey // by Datacenter
}

// placeKey is what leads to a place, as Datacenters write it.
type placeKey struct{ secret, key, namespace string }

type openPlace struct {
	Place
	revision string // of the Secret
	stop     context.CancelFunc
}

// placeScheme has the kinds that are read and written at places.
var placeScheme = clientgoscheme.Scheme

// placeMapper knows their resources, so that nothing has to be asked of a cluster before it is worked with.
var placeMapper = func() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	for _, kind := range append(watchedKinds(),
		corev1.SchemeGroupVersion.WithKind("Secret"), corev1.SchemeGroupVersion.WithKind("Event"), policyv1.SchemeGroupVersion.WithKind("Eviction"),
	) {
		m.Add(kind, meta.RESTScopeNamespace)
	}
	m.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	m.Add(storagev1.SchemeGroupVersion.WithKind("StorageClass"), meta.RESTScopeRoot)
	return m
}()

// watchedKinds are the kinds of objects whose changes matter. All but pods are made by the operator.
func watchedKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"),
		appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
		appsv1.SchemeGroupVersion.WithKind("Deployment"),
		autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		corev1.SchemeGroupVersion.WithKind("Service"),
		policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
	}
}

// dialPatience is how long a cluster may take to accept a connection.
const dialPatience = 5 * time.Second

// Of returns the place of the Datacenter's servers. Errors are render.Refusals for ClusterReachable if a person has to do
// something about the kubeconfig. No cluster is spoken to but the operator's own.
func (p *Places) Of(ctx context.Context, dc *v1alpha1.Datacenter) (Place, error) {
	at := placeKey{namespace: p.Namespace}
	config, revision := p.Config, ""
	if c := dc.Spec.Cluster; c != nil {
		at.namespace = c.Namespace
		if ref := c.KubeconfigSecretRef; ref != nil {
			at.secret, at.key = ref.Name, ref.Key
			var secret corev1.Secret
			name := types.NamespacedName{Namespace: p.Namespace, Name: ref.Name}
			switch err := p.Secrets.Get(ctx, name, &secret); {
			case apierrors.IsNotFound(err):
				return Place{}, render.Refuse(v1alpha1.ReasonKubeconfigNotFound, "there is no Secret %s with the kubeconfig", name)
			case err != nil:
				return Place{}, fmt.Errorf("reading Secret %s: %w", name, err)
			}
			revision = string(secret.UID) + " " + secret.ResourceVersion
			var err error
			if config, err = remoteConfig(secret.Data[ref.Key]); err != nil {
				reason := v1alpha1.ReasonKubeconfigInvalid
				if len(secret.Data[ref.Key]) == 0 {
					reason = v1alpha1.ReasonKubeconfigNotFound
				}
				return Place{}, render.Refuse(reason, "key %q of Secret %s: %v", ref.Key, name, err)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.open[at]; o == nil || o.revision != revision {
		opened, err := p.openLocked(config, at)
		if err != nil {
			return Place{}, render.Refuse(v1alpha1.ReasonKubeconfigInvalid, "the kubeconfig can't be used: %v", err)
		}
		opened.revision = revision
		if o != nil {
			o.stop()
		}
		if p.open == nil {
			p.open, p.used = map[placeKey]*openPlace{}, map[string]placeKey{}
		}
		p.open[at] = opened
	}
	if before, is := p.used[dc.Name]; is && before != at {
		p.closeUnused(dc.Name)
	}
	p.used[dc.Name] = at
	return p.open[at].Place, nil
}

// Drop forgets a Datacenter that is gone.
func (p *Places) Drop(datacenter string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeUnused(datacenter)
}

// closeUnused takes the Datacenter's place from it, and closes that if nobody else has it. mu is held.
func (p *Places) closeUnused(datacenter string) {
	at, is := p.used[datacenter]
	delete(p.used, datacenter)
	for _, other := range p.used {
		is = is && other != at
	}
	if o := p.open[at]; is && o != nil {
		o.stop()
		delete(p.open, at)
	}
}

// Close ends all watches.
func (p *Places) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, o := range p.open {
		o.stop()
		delete(p.open, at)
	}
}

func (p *Places) openLocked(config *rest.Config, at placeKey) (*openPlace, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.UserAgent = p.Config.UserAgent
	// Objects are applied again and again: what an API server warns of, such as externalIPs, is logged once.
	config.WarningHandlerWithContext = log.NewKubeAPIWarningLogger(log.KubeAPIWarningLoggerOptions{Deduplicate: true})
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{HTTPClient: http, Scheme: placeScheme, Mapper: placeMapper, FieldOwner: fieldOwner})
	if err != nil {
		return nil, err
	}
	managed := labels.SelectorFromSet(labels.Set{render.LabelManagedBy: render.ManagedBy})
	watched, err := cache.New(config, cache.Options{
		HTTPClient: http, Scheme: placeScheme, Mapper: placeMapper, DefaultNamespaces: map[string]cache.Config{at.namespace: {LabelSelector: managed}},
		DefaultTransform: onlyIdentity,
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) {
			p.Log.V(1).Info("Watching servers failed, it is tried again", "namespace", at.namespace, "secret", at.secret, "reason", err.Error())
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(logr.NewContext(context.Background(), p.Log))
	for _, kind := range watchedKinds() {
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(kind)
		informer, err := watched.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err == nil {
			_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
				AddFunc: p.tell, UpdateFunc: func(_, o any) { p.tell(o) }, DeleteFunc: p.tell,
			})
		}
		if err != nil {
			stop()
			return nil, err
		}
	}
	go func() {
		if err := watched.Start(ctx); err != nil {
			p.Log.Error(err, "Watching servers", "namespace", at.namespace, "secret", at.secret)
		}
		http.CloseIdleConnections()
	}()
	place := Place{Client: c, Namespace: at.namespace, Remote: at.secret != "", Own: at == placeKey{namespace: p.Namespace}}
	return &openPlace{Place: place, stop: stop}, nil
}

// onlyIdentity keeps of an object what tells whose it is: nothing is read from the caches.
func onlyIdentity(o any) (any, error) {
	if m, is := o.(*metav1.PartialObjectMetadata); is {
		return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
			Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
			Labels: map[string]string{render.LabelDatacenter: m.Labels[render.LabelDatacenter], render.LabelPool: m.Labels[render.LabelPool]},
		}}, nil
	}
	return o, nil
}

func (p *Places) tell(o any) {
	if gone, is := o.(toolscache.DeletedFinalStateUnknown); is {
		o = gone.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	switch datacenter := m.GetLabels()[render.LabelDatacenter]; {
	case datacenter == "": // the namespace has others
	case m.GetLabels()[render.LabelPool] != "":
		p.PoolsChanged(datacenter)
	default:
		p.Changed(datacenter)
	}
}

// remoteConfig reads a kubeconfig that must have in itself all that it needs: it comes from whoever writes the Secret, and
// must neither run programs nor read files in the manager's pod. Errors never quote credentials.
func remoteConfig(kubeconfig []byte) (*rest.Config, error) {
	if len(kubeconfig) == 0 {
		return nil, errors.New("there is no kubeconfig")
	}
	loaded, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, errors.New("it is no kubeconfig: it does not parse") // err may quote
	}
	if loaded.CurrentContext == "" && len(loaded.Contexts) == 1 {
		for name := range loaded.Contexts {
			loaded.CurrentContext = name
		}
	}
	at := loaded.Contexts[loaded.CurrentContext]
	if at == nil {
		return nil, fmt.Errorf("it has no context %q, its current-context", loaded.CurrentContext)
	}
	cluster, user := loaded.Clusters[at.Cluster], loaded.AuthInfos[at.AuthInfo]
	switch {
	case cluster == nil || cluster.Server == "":
		return nil, fmt.Errorf("context %q has no cluster with a server", loaded.CurrentContext)
	case user == nil:
		return nil, fmt.Errorf("context %q has no user", loaded.CurrentContext)
	case user.Exec != nil || user.AuthProvider != nil:
		return nil, errors.New("its user gets credentials from a program (exec or auth-provider): use a token or a client certificate, as config/rbac/remote makes")
	case user.TokenFile != "" || user.ClientCertificate != "" || user.ClientKey != "" || cluster.CertificateAuthority != "":
		return nil, errors.New("it names files: it must have certificates, keys and tokens in itself (kubectl config view --raw --flatten)")
	case cluster.InsecureSkipTLSVerify:
		return nil, errors.New("insecure-skip-tls-verify would let anybody pose as the cluster: give certificate-authority-data")
	}
	config, err := clientcmd.NewDefaultClientConfig(*loaded, nil).ClientConfig()
	if err != nil {
		return nil, errors.New("it is not complete: it needs a server, its CA, and a token or a client certificate with its key")
	}
	config.Dial = (&net.Dialer{Timeout: dialPatience, KeepAlive: 30 * time.Second}).DialContext
	return config, nil
}

// clusterFault is why a call to a place's cluster failed, for ClusterReachable; nil if the fault is not with the cluster or
// with what it lets the operator do at all.
func clusterFault(err error) render.Refusal {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case apierrors.IsUnauthorized(err):
		return render.Refuse(v1alpha1.ReasonUnauthorized, "the cluster does not accept the credentials of the kubeconfig: they are wrong or have expired. "+
			"Put new ones into the Secret; they are in use within a minute")
	case apierrors.IsForbidden(err):
		return render.Refuse(v1alpha1.ReasonForbidden, "%s. The rights that are needed are in config/rbac/remote: apply it there", err)
	case errors.As(err, &status) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsInternalError(err):
		return nil
	}
	return render.Refuse(v1alpha1.ReasonUnreachable, "the cluster does not answer: %s. Servers there go on as they are; it is tried again every minute at least", silence(err))
}

// silence says why a cluster does not answer, in the same words as long as the cause is the same: no ports of this side.
func silence(err error) string {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "it takes too long"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err.Error()
	}
	if call := (*url.Error)(nil); errors.As(err, &call) {
		return call.Err.Error()
	}
	return err.Error()
}
