// Command coredns is CoreDNS with no more plugins than the benchmarks use. It is a module of its own, which the rest of the
// repository does not depend on.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/tls"
)

func main() {
	dnsserver.Directives = []string{"tls", "bind", "cache", "file"} // in the order that queries go through
	coremain.Run()
}
