package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// The Secrets of the stream between hub and servers, in the operator's namespace. All are read by name: nothing may list
// or watch Secrets. Names of datacenters and groups come from Datacenters, so the rule can't name them. Besides these
// the namespace should hold nothing secret.
const (
	// DefaultNamespace is the operator's namespace if it is not told another.
	DefaultNamespace = "fingerpost-system"
	// AuthoritySecret holds the CA: its key, its certificate and every CA that is trusted.
	AuthoritySecret = "fingerpost-ca"
	// HubSecret holds the certificate of the hub.
	HubSecret = "fingerpost-hub"
)

// ServerSecret is the name of the Secret with the certificate of the servers of one group of a datacenter.
func ServerSecret(group control.GroupKey) string { return render.ServerSecret(render.Location(group)) }

const (
	// secretCheck is how often Secrets are read even if nothing is due: nobody watches them, so this is how an edited or
	// deleted one is noticed.
	secretCheck = 10 * time.Minute
	// lostRaceDelay is when to read again what another manager has written in between.
	lostRaceDelay = time.Second
)

// exportSoon is what is left to do after a CA was made without having been announced: the hub's next certificate is of that CA.
const exportSoon = "Export the certificates of servers that are started by hand again before the hub's is renewed"

// DamagedSecretError reports a Secret that can't be used and that the manager won't replace.
type DamagedSecretError struct {
	Secret types.NamespacedName
	Defect error  // never quotes secret data
	Remedy string // what to do, in the imperative
}

func (e *DamagedSecretError) Error() string {
	return fmt.Sprintf("secret %s is damaged and left as it is: %v. %s", e.Secret, e.Defect, e.Remedy)
}

func (e *DamagedSecretError) Unwrap() error { return e.Defect }

// Reason is the reason of the Event, or of a condition.
func (*DamagedSecretError) Reason() string { return "DamagedSecret" }

// CertificateIssuer keeps certificates in Secrets of one namespace.
type CertificateIssuer struct {
	Secrets   client.Reader // not a cache: a cache lists and watches
	Writer    client.Writer
	Events    events.EventRecorder
	Namespace string
	Policy    pki.Policy
	Now       func() time.Time
}

// CertificateReconciler keeps a Secret for each server group of each Datacenter, and for each ResolverPool in it: a certificate
// that names datacenter and group, its key, and the CAs to trust. The Secret goes when the Datacenter is deleted. That of a
// group which a Datacenter no longer has is not renewed, and expires; that of a pool which is no longer in the datacenter is
// deleted. Secrets can't be listed: those of pools are noted in a ConfigMap before they are made.
type CertificateReconciler struct {
	CertificateIssuer
	Scheme *runtime.Scheme
	Pools  client.Reader // cached
}

// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=get;create;update;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=get;create;patch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters;resolverpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile brings the Secrets of one Datacenter up to date. Until there is a CA it does nothing: that one's arrival
// reconciles every Datacenter.
func (r *CertificateReconciler) Reconcile(ctx context.Context, dc *v1alpha1.Datacenter) (reconcile.Result, error) {
	if !dc.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	now := r.Now()
	authority, found, err := r.authority(ctx)
	if err != nil || !found {
		next, err := r.settle(ctx, dc, now, time.Time{}, err)
		return r.after(now, next), err
	}
	pools, err := r.pools(ctx, dc)
	if err != nil {
		return reconcile.Result{}, err
	}
	next, errs := now.Add(secretCheck), []error{r.note(ctx, dc.Name, pools)}
	if errs[0] != nil {
		pools = nil // what is not noted is not made
	}
	groups := slices.Collect(maps.Keys(pools))
	slices.SortFunc(groups, func(a, b control.GroupKey) int { return cmp.Compare(a.Group, b.Group) })
	for _, group := range dc.Spec.ServerGroups {
		groups = append(groups, control.GroupKey{Datacenter: dc.Name, Group: group.Name})
	}
	for _, group := range groups {
		due, err := r.reconcileGroup(ctx, dc, group, authority, now)
		due, err = r.settle(ctx, dc, now, due, err)
		errs = append(errs, err)
		next = earlier(next, due)
	}
	return r.after(now, next), errors.Join(errs...)
}

// reconcileGroup returns when the certificate of one group is due for renewal.
func (r *CertificateReconciler) reconcileGroup(ctx context.Context, dc *v1alpha1.Datacenter, group control.GroupKey, authority pki.Authority, now time.Time) (time.Time, error) {
	held, err := r.read(ctx, ServerSecret(group))
	if err != nil {
		return time.Time{}, err
	}
	want := held.DeepCopy()
	if err := controllerutil.SetOwnerReference(dc, want, r.Scheme); err != nil {
		return time.Time{}, fmt.Errorf("owner of Secret %s: %w", want.Name, err)
	}
	metav1.SetMetaDataLabel(&want.ObjectMeta, render.LabelDatacenter, group.Datacenter)
	if group.Authoritative() {
		metav1.SetMetaDataLabel(&want.ObjectMeta, render.LabelGroup, group.Group)
	}
	due, _, err := r.reconcileLeaf(ctx, dc, held, want, ServerProfile(group), authority, now)
	return due, err
}

// pools are the groups of ResolverPools in a datacenter.
func (r *CertificateReconciler) pools(ctx context.Context, dc *v1alpha1.Datacenter) (map[control.GroupKey]bool, error) {
	var list v1alpha1.ResolverPoolList
	if err := r.Pools.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing ResolverPools: %w", err)
	}
	groups := map[control.GroupKey]bool{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp.IsZero() && render.PoolIn(p, dc) {
			groups[poolGroup(dc.Name, client.ObjectKeyFromObject(p))] = true
		}
	}
	return groups, nil
}

// poolSecrets is the ConfigMap that notes for which groups of pools there may be Secrets: its keys are the groups, as
// DATACENTER.GROUP. A key of a Datacenter that is gone stays, and means nothing.
const poolSecrets = "fingerpost-pool-secrets"

func poolSecretsKey(group control.GroupKey) string { return group.Datacenter + "." + group.Group }

// note notes the groups of the pools in a datacenter, and deletes the Secrets of those that are noted and not in it any more.
func (r *CertificateReconciler) note(ctx context.Context, datacenter string, pools map[control.GroupKey]bool) error {
	noted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: poolSecrets}}
	err := r.Secrets.Get(ctx, client.ObjectKeyFromObject(noted), noted)
	exists := err == nil
	if client.IgnoreNotFound(err) != nil || !exists && len(pools) == 0 {
		return client.IgnoreNotFound(err)
	}
	want := noted.DeepCopy()
	if want.Data == nil {
		want.Data = map[string]string{}
	}
	for group := range pools {
		want.Data[poolSecretsKey(group)] = ""
	}
	var errs []error
	for key := range noted.Data {
		of, group, _ := strings.Cut(key, ".")
		gone := control.GroupKey{Datacenter: of, Group: group}
		if of != datacenter || pools[gone] || gone.Authoritative() {
			continue
		}
		secret := r.secret(ServerSecret(gone))
		if err := r.Writer.Delete(ctx, secret); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting Secret %s: %w", client.ObjectKeyFromObject(secret), err))
			continue
		} else if err == nil {
			log.FromContext(ctx).Info("Secret deleted: the pool is no longer in the datacenter", "secret", client.ObjectKeyFromObject(secret))
		}
		delete(want.Data, key)
	}
	switch {
	case !exists:
		metav1.SetMetaDataLabel(&want.ObjectMeta, render.LabelManagedBy, render.ManagedBy)
		err = r.Writer.Create(ctx, want)
	case !maps.Equal(noted.Data, want.Data):
		err = r.Writer.Patch(ctx, want, client.MergeFrom(noted))
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("writing ConfigMap %s: %w", client.ObjectKeyFromObject(noted), err))
	}
	return errors.Join(errs...)
}

// ServerProfile is what the certificate of the servers of one group says.
func ServerProfile(group control.GroupKey) pki.Profile { return pki.ServerProfile(group.URI()) }

// HubCertificateReconciler keeps the CA and the certificate of the hub. It has one object, so requests are all alike.
type HubCertificateReconciler struct {
	CertificateIssuer
	HubNames []pki.HubName
	// Source gets the certificate of the hub at once when it was written.
	Source *HubCertificateSource
	// AuthorityChanged is called after the Secret of the CA was written. It must not block.
	AuthorityChanged func()
}

// Reconcile brings CA and hub certificate up to date.
func (r *HubCertificateReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	now := r.Now()
	due, err := r.reconcile(ctx, now)
	due, err = r.settle(ctx, nil, now, due, err)
	return r.after(now, due), err
}

func (r *HubCertificateReconciler) reconcile(ctx context.Context, now time.Time) (time.Time, error) {
	hub, err := r.read(ctx, HubSecret)
	if err != nil {
		return time.Time{}, err
	}
	authority, due, err := r.reconcileAuthority(ctx, hub.Data[pki.BundleKey], now)
	if err != nil {
		return time.Time{}, err
	}
	leafDue, stored, err := r.reconcileLeaf(ctx, nil, hub, hub.DeepCopy(), pki.HubProfile(control.HubURI(), r.Namespace, r.HubNames), authority, now)
	if err != nil {
		return time.Time{}, err
	}
	if err := r.Source.Install(ctx, stored); err != nil {
		return time.Time{}, err
	}
	return earlier(due, leafDue), nil
}

// reconcileAuthority makes the CA if there is none, and takes the steps of its succession that are due. A CA that is
// there but damaged is an error: to make another would cut off every server. If its Secret was deleted, the CAs that
// the hub still trusts (trusted, PEM, may be empty) go on being trusted.
func (r *HubCertificateReconciler) reconcileAuthority(ctx context.Context, trusted []byte, now time.Time) (pki.Authority, time.Time, error) {
	held, err := r.read(ctx, AuthoritySecret)
	if err != nil {
		return pki.Authority{}, time.Time{}, err
	}
	reason, note := "CASucceeded", ""
	var authority pki.Authority
	if held.ResourceVersion == "" {
		var inherited []byte
		reason, note = "CACreated", "made a CA"
		if len(trusted) > 0 {
			inherited, note = trusted, "the Secret was gone: made a new CA; what the one before it has signed stays valid. "+exportSoon
		}
		authority, err = r.newAuthority(inherited, now)
	} else {
		authority, err = r.parseAuthority(held)
	}
	if err != nil {
		return pki.Authority{}, time.Time{}, err
	}
	authority, steps, due, err := authority.Advance(now, r.Policy)
	if err != nil {
		return pki.Authority{}, time.Time{}, fmt.Errorf("succession of the CA in Secret %s: %w", client.ObjectKeyFromObject(held), err)
	}
	want := held.DeepCopy()
	for _, key := range []string{pki.NextCertificateKey, pki.NextPrivateKeyKey} {
		delete(want.Data, key)
	}
	setData(want, authority.Data())
	written, err := r.write(ctx, held, want)
	if err != nil || !written {
		return authority, due, err
	}
	for _, s := range steps {
		if note != "" {
			note += "; "
		}
		note += s.String()
	}
	if note == "" {
		reason, note = "CAUpdated", "brought "+pki.BundleKey+" and labels in line with the CA that signs"
	}
	r.report(ctx, nil, want, reason, note)
	r.AuthorityChanged()
	return authority, due, nil
}

func (r *HubCertificateReconciler) newAuthority(inherited []byte, now time.Time) (pki.Authority, error) {
	if len(inherited) == 0 {
		return pki.NewAuthority(nil, now, r.Policy)
	}
	certs, err := pki.ParseCertificates(inherited)
	if err != nil {
		return pki.Authority{}, &DamagedSecretError{
			Secret: client.ObjectKeyFromObject(r.secret(HubSecret)),
			Defect: fmt.Errorf("%s: %w; and Secret %s, which it is a copy of, is gone", pki.BundleKey, err, AuthoritySecret),
			Remedy: "Restore " + AuthoritySecret + " from a backup. If there is none, delete " + HubSecret +
				": a new CA is made, and every server must get its certificate anew.",
		}
	}
	return pki.NewAuthority(certs, now, r.Policy)
}

// reconcileLeaf brings one leaf's Secret to hold a valid certificate of profile and the bundle of authority. held is the Secret
// as read, want its copy with the caller's changes to the metadata. Events are about regarding; nil means the Secret. It
// returns when the certificate is due for renewal, and the Secret as it is now stored.
func (i *CertificateIssuer) reconcileLeaf(
	ctx context.Context, regarding client.Object, held, want *corev1.Secret, profile pki.Profile, authority pki.Authority, now time.Time,
) (due time.Time, stored *corev1.Secret, err error) {
	leaf, due, reissue := authority.Check(held.Data, profile, now, i.Policy)
	if reissue != "" {
		if leaf, err = authority.Issue(profile, now, i.Policy); err != nil {
			return time.Time{}, nil, fmt.Errorf("certificate for Secret %s: %w", client.ObjectKeyFromObject(want), err)
		}
		_, due, _ = authority.Check(authority.LeafData(leaf), profile, now, i.Policy)
	}
	setData(want, authority.LeafData(leaf))
	written, err := i.write(ctx, held, want)
	if err != nil {
		return time.Time{}, nil, err
	}
	switch {
	case reissue != "":
		i.report(ctx, regarding, want, "CertificateIssued", fmt.Sprintf("issued the certificate in Secret %s, because %s; valid until %s",
			want.Name, reissue, leaf.Certificate().NotAfter.Format(time.RFC3339)))
	case written:
		i.report(ctx, regarding, want, "CertificateUpdated", fmt.Sprintf("Secret %s now has the present CAs, labels and owner", want.Name))
	}
	return due, want, nil
}

// setData sets keys of a Secret; others, which somebody else may have added, stay.
func setData(s *corev1.Secret, data map[string][]byte) {
	if s.Data == nil {
		s.Data = make(map[string][]byte, len(data))
	}
	maps.Copy(s.Data, data)
	metav1.SetMetaDataLabel(&s.ObjectMeta, render.LabelManagedBy, render.ManagedBy)
}

// secret is a Secret that does not exist yet.
func (i *CertificateIssuer) secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: i.Namespace, Name: name}, Type: corev1.SecretTypeTLS}
}

// read reads a Secret. One that does not exist has no resource version.
func (i *CertificateIssuer) read(ctx context.Context, name string) (*corev1.Secret, error) {
	s := i.secret(name)
	switch err := i.Secrets.Get(ctx, client.ObjectKeyFromObject(s), s); {
	case apierrors.IsNotFound(err):
		return i.secret(name), nil
	case err != nil:
		return nil, fmt.Errorf("reading Secret %s/%s: %w", i.Namespace, name, err)
	}
	return s, nil
}

// write stores want if it differs from held, the Secret as it was read: created if it did not exist, else updated
// under the resource version that was read. It never overwrites what somebody else has written since: that is an
// error of apierrors' kinds AlreadyExists or Conflict.
func (i *CertificateIssuer) write(ctx context.Context, held, want *corev1.Secret) (written bool, err error) {
	key := client.ObjectKeyFromObject(want)
	switch {
	case held.ResourceVersion == "":
		err = i.Writer.Create(ctx, want)
	case equality.Semantic.DeepEqual(held, want):
		return false, nil
	case held.Immutable != nil && *held.Immutable:
		return false, &DamagedSecretError{key, errors.New("it must change, but is marked immutable"), "Replace it by a copy that is not."}
	default:
		err = i.Writer.Update(ctx, want)
	}
	if err != nil {
		return false, fmt.Errorf("writing Secret %s: %w", key, err)
	}
	return true, nil
}

// authority reads the CA. It is not found before the first leader has made it.
func (i *CertificateIssuer) authority(ctx context.Context) (a pki.Authority, found bool, err error) {
	held, err := i.read(ctx, AuthoritySecret)
	if err != nil || held.ResourceVersion == "" {
		return pki.Authority{}, false, err
	}
	a, err = i.parseAuthority(held)
	return a, err == nil, err
}

func (i *CertificateIssuer) parseAuthority(held *corev1.Secret) (pki.Authority, error) {
	a, err := pki.ParseAuthority(held.Data)
	if err != nil {
		return pki.Authority{}, &DamagedSecretError{
			Secret: client.ObjectKeyFromObject(held),
			Defect: err,
			Remedy: "Servers and hub go on with the certificates that they have; none is renewed. Restore the Secret from a backup. " +
				"If there is none, delete it: a new CA is made, and what the old one has signed stays valid. " + exportSoon,
		}
	}
	return a, nil
}

// report records an Event about regarding (nil: about the Secret) and logs it.
func (i *CertificateIssuer) report(ctx context.Context, regarding client.Object, written *corev1.Secret, reason, note string) {
	if regarding == nil {
		i.Events.Eventf(written, nil, corev1.EventTypeNormal, reason, "Issue", "%s", note)
	} else {
		i.Events.Eventf(regarding, written, corev1.EventTypeNormal, reason, "Issue", "%s", note)
	}
	log.FromContext(ctx).Info("Secret written", "secret", client.ObjectKeyFromObject(written), "reason", reason, "note", note)
}

// settle takes what one Secret's reconciliation ended with and returns when to look again. Errors that the work queue
// can mend are returned; one that only a person can mend becomes an Event about regarding (nil: about the damaged
// Secret), and the Secret is read again as if nothing were due.
func (i *CertificateIssuer) settle(ctx context.Context, regarding client.Object, now, due time.Time, err error) (time.Time, error) {
	var damaged *DamagedSecretError
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		log.FromContext(ctx).V(1).Info("Another manager was quicker: reading again", "error", err.Error())
		return now.Add(lostRaceDelay), nil
	case errors.As(err, &damaged):
		if regarding == nil {
			regarding = i.secret(damaged.Secret.Name)
		}
		i.Events.Eventf(regarding, nil, corev1.EventTypeWarning, damaged.Reason(), "Issue", "%s", damaged.Error())
		log.FromContext(ctx).Error(err, "Certificates are not renewed")
		return now.Add(secretCheck), nil
	case err != nil:
		return now.Add(secretCheck), err
	case due.IsZero():
		return now.Add(secretCheck), nil
	}
	return due, nil
}

// after asks for the next reconciliation when something is due, and at the latest after secretCheck.
func (i *CertificateIssuer) after(now, due time.Time) reconcile.Result {
	return reconcile.Result{RequeueAfter: min(max(due.Sub(now), lostRaceDelay), secretCheck)}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
