package dnsserver

import (
	"errors"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

type HubConfig struct{}

func newHubSource(HubConfig, *zone.View, string, logr.Logger) (source, error) {
	return nil, errors.New("not yet")
}
