package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// certificateFlags adds to flags what the certificates made by the manager depend on. The result is complete, but for
// the namespace, once flags are parsed.
func certificateFlags(flags *pflag.FlagSet) *controllers.CertificateOptions {
	o := &controllers.CertificateOptions{Policy: pki.DefaultPolicy()}
	flags.Var((*hubNames)(&o.HubNames), "hub-name",
		"DNS name or IP address under which servers reach the hub, for its certificate; repeatable. "+
			"localhost, the loopback addresses and the names of the Service fingerpost-hub are always in it")
	flags.DurationVar(&o.Policy.LeafLife, "certificate-life", o.Policy.LeafLife, "how long certificates of the hub and of servers are valid")
	flags.IntVar(&o.Policy.RenewAt, "certificate-renew-at", o.Policy.RenewAt, "percentage of their life after which certificates are renewed")
	flags.DurationVar(&o.Policy.CALife, "ca-life", o.Policy.CALife, "how long a CA is valid; its successor is trusted well before it signs")
	flags.DurationVar(&o.Policy.Skew, "certificate-clock-skew", o.Policy.Skew, "how far clocks of servers may be behind: certificates are valid from that long ago")
	return o
}

// hubNames is a repeatable flag.
type hubNames []pki.HubName

func (n *hubNames) Set(text string) error {
	name, err := pki.ParseHubName(text)
	if err == nil {
		*n = append(*n, name)
	}
	return err
}

func (n *hubNames) String() string {
	texts := make([]string, len(*n))
	for i, name := range *n {
		texts[i] = name.String()
	}
	return strings.Join(texts, ",")
}

func (*hubNames) Type() string { return "name" }

// certsCommand is `manager certs`.
func certsCommand() *cobra.Command {
	certs := &cobra.Command{
		Use:   "certs",
		Short: "Certificates of the stream between hub and servers",
		Args:  cobra.NoArgs,
	}
	certs.AddCommand(certsExportCommand())
	return certs
}

func certsExportCommand() *cobra.Command {
	var (
		group                      control.GroupKey
		all                        bool
		dir, kubeconfig, namespace string
		timeout                    time.Duration
	)
	export := &cobra.Command{
		Use:   "export {--datacenter NAME --group NAME | --all} --dir DIR",
		Short: "Write certificate, key and CAs of servers and resolvers that are started by hand",
		Long: `Writes tls.crt, tls.key (readable by its owner only) and ca.crt, which dnsserver and resolver-agent need to reach the hub,
from the Secrets that the manager keeps: for one group into DIR, or for every group of every Datacenter into
DIR/DATACENTER/GROUP. The agents of the ResolverPool NAME in NAMESPACE are the group pool.NAMESPACE.NAME; those of External
pools are among all. A Secret that is not there yet is waited for. Files that are current are left alone.

Certificates are renewed in the Secrets: run this again regularly, such as weekly. The user of the kubeconfig must be
allowed to get the Secrets, and with --all to list Datacenters and ResolverPools.`,
		Example: `  manager certs export --datacenter dc-a --group root --dir /etc/fingerpost
  manager certs export --datacenter dc-a --group pool.dns-root.office --dir /etc/fingerpost
  manager certs export --all --dir certs`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errors.New("--dir must name a folder")
			}
			if !all {
				if err := validateGroup(group); err != nil {
					return err
				}
			}
			cmd.SilenceUsage = true // from here on it is not the command line that is wrong
			reader, err := newReader(kubeconfig)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("waited %s", timeout))
			defer cancel()
			e := exporter{reader: reader, namespace: namespace, out: cmd.OutOrStdout(), now: time.Now}
			if all {
				return e.exportAll(ctx, dir)
			}
			return e.export(ctx, group, dir)
		},
	}
	flags := export.Flags()
	flags.StringVar(&group.Datacenter, "datacenter", "", "name of the Datacenter")
	flags.StringVar(&group.Group, "group", "", "name of the server group in the Datacenter, or pool.NAMESPACE.NAME")
	flags.BoolVar(&all, "all", false, "every group and External pool of every Datacenter, each into DIR/DATACENTER/GROUP")
	flags.StringVar(&dir, "dir", "", "folder to write to; made if absent")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster (default: $KUBECONFIG, ~/.kube/config, or the pod's service account)")
	flags.StringVarP(&namespace, "namespace", "n", controllers.DefaultNamespace, "namespace of the operator")
	flags.DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for Secrets that are not there yet")
	export.MarkFlagsRequiredTogether("datacenter", "group")
	export.MarkFlagsMutuallyExclusive("all", "datacenter")
	export.MarkFlagsMutuallyExclusive("all", "group")
	export.MarkFlagsOneRequired("all", "datacenter")
	if err := export.MarkFlagRequired("dir"); err != nil {
		panic(err) // there is no such flag: a bug
	}
	return export
}

// newReader reads from the API server that kubeconfig names; empty: from the one that kubectl would use, or the
// cluster of this pod.
func newReader(kubeconfig string) (client.Reader, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	return c, nil
}

// validateGroup checks what the command line says of a group.
func validateGroup(g control.GroupKey) error {
	labels := []struct{ flag, value string }{{"datacenter", g.Datacenter}, {"group", g.Group}}
	if namespace, name, is := pool.ParseGroup(g.Group); is {
		labels = append(labels[:1], []struct{ flag, value string }{{"group", namespace}, {"group", name}}...)
	}
	for _, f := range labels {
		if defects := validation.IsDNS1123Label(f.value); len(defects) > 0 {
			return fmt.Errorf("--%s %q: %s", f.flag, f.value, defects[0])
		}
	}
	return nil
}

// exporter writes the content of the Secrets of server groups and pools to files.
type exporter struct {
	reader    client.Reader
	namespace string
	out       io.Writer // one line a group
	now       func() time.Time
}

// secretPoll is how often a Secret that is waited for is read. It is not watched: that would need more rights.
const secretPoll = 250 * time.Millisecond

// exportAll writes every group of every Datacenter that exists now, and of every External pool in it, into
// dir/DATACENTER/GROUP.
func (e exporter) exportAll(ctx context.Context, dir string) error {
	var datacenters v1alpha1.DatacenterList
	if err := e.reader.List(ctx, &datacenters); err != nil {
		return fmt.Errorf("listing Datacenters: %w", err)
	}
	if len(datacenters.Items) == 0 {
		return errors.New("there is no Datacenter yet: apply one, then export again")
	}
	var pools v1alpha1.ResolverPoolList
	if err := e.reader.List(ctx, &pools); err != nil {
		return fmt.Errorf("listing ResolverPools: %w", err)
	}
	for _, dc := range datacenters.Items {
		var groups []string
		for _, g := range dc.Spec.ServerGroups {
			groups = append(groups, g.Name)
		}
		for _, p := range pools.Items {
			if p.Spec.Management == v1alpha1.ResolverPoolExternal && p.DeletionTimestamp.IsZero() && render.PoolIn(&p, &dc) {
				groups = append(groups, pool.GroupName(p.Namespace, p.Name))
			}
		}
		for _, g := range groups {
			if err := e.export(ctx, control.GroupKey{Datacenter: dc.Name, Group: g}, filepath.Join(dir, dc.Name, g)); err != nil {
				return err
			}
		}
	}
	return nil
}

// export writes one group into dir. It waits for the group's Secret until ctx ends.
func (e exporter) export(ctx context.Context, group control.GroupKey, dir string) error {
	key := types.NamespacedName{Namespace: e.namespace, Name: controllers.ServerSecret(group)}
	secret, absent := &corev1.Secret{}, false
	err := wait.PollUntilContextCancel(ctx, secretPoll, true, func(ctx context.Context) (bool, error) {
		err := e.reader.Get(ctx, key, secret)
		absent = absent || apierrors.IsNotFound(err)
		return err == nil, client.IgnoreNotFound(err)
	})
	switch {
	case ctx.Err() != nil && absent:
		return fmt.Errorf("secret %s did not appear: is there a Datacenter %s with a server group or pool %s, and does a manager lead? %w",
			key, group.Datacenter, group.Group, context.Cause(ctx))
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the user of the kubeconfig may not read it: %w", err)
	case err != nil:
		return fmt.Errorf("reading Secret %s: %w", key, err)
	}
	leaf, err := pki.ParseLeaf(secret.Data, controllers.ServerProfile(group), e.now())
	if err != nil {
		return fmt.Errorf("secret %s can't be used: %w; a manager that leads issues it again", key, err)
	}
	written, err := writeLeaf(dir, secret.Data)
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", group, err)
	}
	done := "unchanged"
	if written {
		done = "written"
	}
	_, err = fmt.Fprintf(e.out, "%s: %s %s, valid until %s\n", group, dir, done, leaf.Certificate().NotAfter.Format(time.RFC3339))
	return err
}

// writeLeaf writes the files of one group, each atomically, and reports whether any of them was not so already. The CAs
// come first: whoever sees a new certificate then trusts its CA. Who reads between two files finds a key that does not
// belong to the certificate, and must go on with what it has.
func writeLeaf(dir string, data map[string][]byte) (written bool, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // servers may run as other users: the key has its own mode
		return false, err
	}
	for _, f := range []struct {
		name string
		mode fs.FileMode
	}{{pki.BundleKey, 0o644}, {pki.PrivateKeyKey, 0o600}, {pki.CertificateKey, 0o644}} {
		path := filepath.Join(dir, f.name)
		if isFile(path, data[f.name], f.mode) {
			continue
		}
		if err := replaceFile(path, data[f.name], f.mode); err != nil {
			return false, fmt.Errorf("writing %s: %w", path, err)
		}
		written = true
	}
	return written, nil
}

// replaceFile puts content and mode in place of what path was, at once. (renameio.WriteFile keeps the old file's mode.)
func replaceFile(path string, content []byte, mode fs.FileMode) (err error) {
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Cleanup()) }() // does nothing once the file is in its place
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// isFile reports whether path is a regular file with this content and mode.
func isFile(path string, content []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode {
		return false
	}
	held, err := os.ReadFile(path)
	return err == nil && bytes.Equal(held, content)
}
