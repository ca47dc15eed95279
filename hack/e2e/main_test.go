//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
)

var (
	wanted = flag.Bool("e2e", false, "run the test of the whole, which needs root and a quarter of an hour")
	keep   = flag.Bool("keep", false, "leave the cluster running, for a look at what has failed; the next run ends it")
)

func TestMain(m *testing.M) {
	cluster.Main()
	flag.Parse()
	if !*wanted {
		fmt.Println("make e2e runs this")
		os.Exit(0)
	}
	os.Exit(m.Run())
}
