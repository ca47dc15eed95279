// Command coredns is CoreDNS with no more plugins than the benchmarks use and the DNS of a cluster's own names (hack/cluster). It is a module of its own, which the rest of the
// repository does not depend on.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/tls"
)

func main() {
	// In the order that queries go through.
	dnsserver.Directives = []string{"tls", "bind", "health", "ready", "errors", "cache", "kubernetes", "file"}
	coremain.Run()
}
