package controllers_test

import (
	"context"
	"slices"
	"sync"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

type memReplica struct {
	mu    sync.Mutex
	view  *zone.View
	zones map[zone.Name]control.Installed
	fence control.Fence
}

func (m *memReplica) Held() []control.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []control.Held
	for apex, z := range m.zones {
		all = append(all, control.Held{Apex: apex, Version: z.Version, Source: z.Source, Cluster: z.Cluster, Records: z.Content.Records()})
	}
	slices.SortFunc(all, func(a, b control.Held) int { return a.Apex.Compare(b.Apex) })
	return all
}
func (m *memReplica) Zone(apex zone.Name) (control.Installed, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	z, ok := m.zones[apex]
	return z, ok
}
func (m *memReplica) Install(_ context.Context, f control.Fence, z control.Installed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &control.StaleEpochError{Fence: f, Seen: m.fence}
	}
	m.fence = f
	s, err := zone.NewServed(z.Content, z.Version)
	if err != nil {
		return err
	}
	m.zones[z.Content.Apex()] = z
	m.view.Update([]*zone.Served{s}, nil)
	return nil
}
func (m *memReplica) Remove(_ context.Context, f control.Fence, apex zone.Name) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &control.StaleEpochError{Fence: f, Seen: m.fence}
	}
	m.fence = f
	delete(m.zones, apex)
	m.view.Update(nil, []zone.Name{apex})
	return nil
}
func (m *memReplica) Fence() control.Fence { m.mu.Lock(); defer m.mu.Unlock(); return m.fence }
func (m *memReplica) Raise(_ context.Context, f control.Fence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &control.StaleEpochError{Fence: f, Seen: m.fence}
	}
	m.fence = f
	return nil
}
func (m *memReplica) OnDurable(func(zone.Name, zone.Version)) {}
func (m *memReplica) Lost() []zone.Name                       { return nil }
func (m *memReplica) Close() error                            { return nil }
