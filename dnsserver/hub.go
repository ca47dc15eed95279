package dnsserver

import (
	"errors"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// HubConfig is for a server whose zones come from a hub.
type HubConfig struct {
	Hubs []string // HOST:PORT, in order of preference; at least one

	// Certificate, Key and Roots are PEM files, which are read again when they change.
	Certificate, Key, Roots string

	Name       string   // of this server, unique in its group
	StateDir   string   // where zones are kept
	Siblings   []string // HOST:PORT of other servers of the group; may be empty
	PeerListen string   // ADDR:PORT where siblings get copies; "" for none
}

func newHubSource(HubConfig, *zone.View, string, logr.Logger) (source, error) {
	return nil, errors.New("not yet")
}
