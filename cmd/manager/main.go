// Command manager is the Fingerpost operator: controllers, renderer and hub in one process.
// Several run at once; one of them leads.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
)

// version is stamped by the build.
var version = "dev"

func main() {
	if err := rootCommand().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		if errors.As(err, new(refusedError)) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

type options struct {
	controllers.Options
	certificates   *controllers.CertificateOptions
	resolverImages resolverImages
	endpoints      hubEndpoints
	metrics        string
	health         string
	leaseDuration  time.Duration
	renewDeadline  time.Duration
	retryPeriod    time.Duration
	verbosity      int
}

func rootCommand() *cobra.Command {
	o := options{resolverImages: defaultResolverImages(buildVersion())}
	cmd := &cobra.Command{
		Use:   "manager",
		Short: "Fingerpost's operator: renders zones from custom resources and pushes them to the DNS servers of every datacenter",
		Long: `manager reads DNSZones and Datacenters, renders the zones, and pushes them to the
dnsservers that have dialled its hub port. Run two or more: one leads, the others
take over when its lease ends. DNS does not depend on any of them being up.

The cluster is that of --kubeconfig, $KUBECONFIG, or the pod's own. In a pod, whose name
is in $POD_NAME, the one that leads labels its pod fingerpost.dev/leader=true, for
Services that servers reach it by.`,
		Example: `  manager --apex-namespaces dns-root --hub-endpoint fingerpost-hub.example.com:8443
  manager certs export --datacenter dc-a --group authoritative --dir /etc/fingerpost/tls`,
		Args:          cobra.NoArgs,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	namespace := os.Getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = "fingerpost-system"
	}
	f := cmd.Flags()
	f.StringVar(&o.Namespace, "namespace", namespace, "the operator's own namespace: certificates, lease and epoch are kept there (default $POD_NAMESPACE, else fingerpost-system)")
	f.StringSliceVar(&o.ApexNamespaces, "apex-namespaces", nil, "namespaces whose DNSZones need no parent in the system, such as that of the private root")
	f.StringVar(&o.HubAddress, "hub-listen", ":8443", "`ADDRESS:PORT` that dnsservers dial")
	f.Var(&o.endpoints, "hub-endpoint", "`HOST:PORT` under which servers that the operator runs reach a manager that leads, in order of preference; repeatable. "+
		"The hosts are in the hub's certificate (default fingerpost-hub.NAMESPACE.svc:8443, NAMESPACE is that of --namespace)")
	f.StringVar(&o.DNSServerImage, "dnsserver-image", "fingerpost/dnsserver:"+buildVersion(), "`image` of servers that the operator runs, where their group names none")
	f.Var(o.resolverImages, "resolver-image", "`ENGINE=IMAGE` of resolvers that the operator runs, where their pool names none; repeatable, for Unbound, KnotResolver and Recursor")
	f.StringSliceVar(&o.WatchNamespaces, "watch-namespaces", nil, "namespaces whose objects count, beside the operator's own; others are not looked at (default: all)")
	o.certificates = certificateFlags(f)
	f.StringVar(&o.metrics, "metrics-listen", "127.0.0.1:8080", "`ADDRESS:PORT` of the Prometheus metrics; 0 switches them off")
	f.StringVar(&o.health, "health-listen", ":8081", "`ADDRESS:PORT` of /healthz and /readyz; 0 switches them off")
	f.DurationVar(&o.leaseDuration, "lease-duration", 15*time.Second, "a leader that was not heard of for so long is replaced")
	f.DurationVar(&o.renewDeadline, "lease-renew-deadline", 10*time.Second, "a leader that can't renew its lease for so long stops")
	f.DurationVar(&o.retryPeriod, "lease-retry-period", 2*time.Second, "how often the lease is looked at")
	f.IntVar(&o.MaxAbsent.Zones, "max-absent-zones", 10, "zones that may vanish within ten minutes without approval, whatever their share")
	f.IntVar(&o.MaxAbsent.Percent, "max-absent-percent", 30, "percentage of a server's zones that may vanish within ten minutes without approval")
	f.IntVar(&o.StatusWrites, "status-writes-per-second", 250, "upper bound of status writes; reserving a serial does not count")
	f.DurationVar(&o.CookieRotation, "cookie-rotation", controllers.DefaultCookieRotation, "how long a secret makes DNS cookies before the next takes its place; at least 2h")
	f.IntVarP(&o.verbosity, "verbosity", "v", 0, "log more: 1 for every decision, 2 for libraries too")
	cmd.AddCommand(certsCommand(), crdsCommand(), applyCommand())
	return cmd
}

func run(ctx context.Context, o options) error {
	handler := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.Level(-o.verbosity)})
	logger := logr.FromSlogHandler(handler)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	o.PodName = os.Getenv("POD_NAME")
	o.HubEndpoints = o.endpoints.texts(o.Namespace)
	o.ResolverImages = o.resolverImages
	o.Certificates = *o.certificates
	o.Certificates.Namespace = o.Namespace
	o.Certificates.HubNames = append(o.Certificates.HubNames, o.endpoints.names()...)
	if o.CookieRotation < 2*time.Hour {
		return fmt.Errorf("--cookie-rotation: %s is less than 2h: cookies are good for an hour, and their secret as long again", o.CookieRotation)
	}

	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", err)
	}
	config.QPS = -1 // the API server's own fairness decides
	config.UserAgent = "fingerpost-manager/" + buildVersion()
	if err := awaitKinds(ctx, kindsPatience, func(ctx context.Context) error { return checkKinds(ctx, config) }); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: o.metrics},
		HealthProbeBindAddress:        o.health,
		LeaderElection:                true,
		LeaderElectionID:              "fingerpost-manager",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.leaseDuration,
		RenewDeadline:                 &o.renewDeadline,
		RetryPeriod:                   &o.retryPeriod,
		Cache:                         cache.Options{DefaultTransform: cache.TransformStripManagedFields(), DefaultNamespaces: cachedNamespaces(o.WatchNamespaces, o.Namespace)},
		Client:                        client.Options{FieldOwner: "fingerpost"},
	})
	if err != nil {
		return fmt.Errorf("setting up the manager: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a health check: %w", err)
	}
	o.Metrics = metrics.Registry
	if err := controllers.Setup(ctx, mgr, o.Options); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("running: %w", err)
	}
	return nil
}

// cachedNamespaces returns what a cache of the listed namespaces and the operator's own is made of; nil, all namespaces, if
// none are listed.
func cachedNamespaces(listed []string, own string) map[string]cache.Config {
	if len(listed) == 0 {
		return nil
	}
	namespaces := map[string]cache.Config{own: {}}
	for _, name := range listed {
		namespaces[name] = cache.Config{}
	}
	return namespaces
}

// buildVersion is the stamped version, else the revision that the toolchain noted.
func buildVersion() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return "dev-" + s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return version
}
