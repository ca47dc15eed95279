package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

const (
	// epochConfigMap keeps the epoch of the last leader, in the operator's namespace.
	epochConfigMap = "fingerpost-hub"
	epochKey       = "epoch"
	// settleTime is how long a new leader waits for servers to say what they hold before it
	// takes the missing ones for gone; firstSettleTime, where no server was ever connected.
	settleTime      = 10 * time.Second
	firstSettleTime = 2 * time.Second
)

// errSuperseded ends a manager that finds another leader's epoch where its own was.
var errSuperseded = errors.New("another manager has taken the lead")

// Leader takes an epoch when this manager is elected, opens the hub under it, and tells when
// the servers have reported.
type Leader struct {
	Client    client.Client // writes
	Live      client.Reader
	Hub       *control.Hub
	Namespace string // the operator's
	// Seen gets epochs above the leader's own that servers report; Joined something whenever
	// a server joins.
	Seen   <-chan uint64
	Joined <-chan control.ServerID
	// OnSettled is called once, when the servers have reported.
	OnSettled func()

	epoch   uint64
	settled atomic.Bool
}

// NeedLeaderElection makes the manager start this when it leads.
func (*Leader) NeedLeaderElection() bool { return true }

// Settled reports whether the servers known to the API have said what they hold, or have
// had time enough.
func (l *Leader) Settled() bool { return l.settled.Load() }

// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=get;update,resourceNames=fingerpost-hub
// +kubebuilder:rbac:groups="",namespace=system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=system,resources=leases,verbs=get;create;update

// Start leads until ctx ends. It fails when another leader has overtaken this one.
func (l *Leader) Start(ctx context.Context) error {
	if err := l.take(ctx, 0); err != nil {
		return fmt.Errorf("taking an epoch: %w", err)
	}
	l.Hub.Lead(l.epoch)
	defer l.Hub.Resign()
	log.FromContext(ctx).Info("Leading", "epoch", l.epoch)
	expected, err := l.expected(ctx)
	if err != nil {
		return err
	}
	patience := settleTime
	if len(expected.servers) == 0 {
		patience = firstSettleTime
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		if !l.settled.Load() && expected.met(l.Hub.Servers()) {
			l.settle()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			if !l.settled.Load() {
				l.settle()
			}
		case <-l.Joined:
		case seen := <-l.Seen:
			if seen < l.epoch {
				continue
			}
			if err := l.take(ctx, seen); err != nil {
				return fmt.Errorf("taking an epoch above %d: %w", seen, err)
			}
			l.Hub.Lead(l.epoch)
			log.FromContext(ctx).Info("Leading on, servers had seen a higher epoch", "epoch", l.epoch)
		}
	}
}

func (l *Leader) settle() {
	l.settled.Store(true)
	l.OnSettled()
}

// take puts an epoch above the stored and the seen one into the API by compare-and-swap.
func (l *Leader) take(ctx context.Context, seen uint64) error {
	key := types.NamespacedName{Namespace: l.Namespace, Name: epochConfigMap}
	for {
		var cm corev1.ConfigMap
		err := l.Live.Get(ctx, key, &cm)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading ConfigMap %s: %w", key, err)
		}
		exists := err == nil
		var stored uint64
		if text := cm.Data[epochKey]; text != "" {
			if stored, err = strconv.ParseUint(text, 10, 64); err != nil {
				return fmt.Errorf("ConfigMap %s: %s: %w; put the highest epoch that servers report there", key, epochKey, err)
			}
		}
		if l.epoch != 0 && stored != l.epoch {
			return errSuperseded
		}
		next := max(stored, seen) + 1
		cm.Data = map[string]string{epochKey: strconv.FormatUint(next, 10)}
		if exists {
			err = l.Client.Update(ctx, &cm)
		} else {
			cm.ObjectMeta = metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
			err = l.Client.Create(ctx, &cm)
		}
		switch {
		case err == nil:
			l.epoch = next
			return nil
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			continue // each round means that somebody else made progress
		default:
			return fmt.Errorf("writing ConfigMap %s: %w", key, err)
		}
	}
}

// census is the servers that a new leader waits for.
type census struct {
	servers []control.ServerID // those that were connected when the last leader wrote
	// declared is how many each group should have. It counts where no leader ever wrote.
	declared map[control.GroupKey]int
}

func (l *Leader) expected(ctx context.Context) (census, error) {
	c := census{declared: map[control.GroupKey]int{}}
	var datacenters v1alpha1.DatacenterList
	if err := l.Live.List(ctx, &datacenters); err != nil {
		return c, fmt.Errorf("listing Datacenters: %w", err)
	}
	for _, dc := range datacenters.Items {
		for _, g := range dc.Spec.ServerGroups {
			c.declared[control.GroupKey{Datacenter: dc.Name, Group: g.Name}] = render.DeclaredServers(g)
		}
		for _, s := range dc.Status.Servers {
			if s.State == v1alpha1.ServerConnected {
				c.servers = append(c.servers, control.ServerID{Datacenter: dc.Name, Group: s.Group, Name: s.Name})
			}
		}
	}
	return c, nil
}

// met is true when all the servers, at least one, are here.
func (c census) met(here []control.ServerReport) bool {
	connected, missing := map[control.ServerID]bool{}, maps.Clone(c.declared)
	for _, s := range here {
		connected[s.ID] = true
		missing[s.ID.GroupKey()]--
	}
	if len(c.servers) == 0 {
		return len(missing) > 0 && slices.Max(slices.Collect(maps.Values(missing))) <= 0 && len(here) > 0
	}
	return !slices.ContainsFunc(c.servers, func(id control.ServerID) bool { return !connected[id] })
}
