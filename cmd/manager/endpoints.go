package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/fingerpost-dns/fingerpost/controllers/pki"
)

// hubPort is where managers listen for servers by default, and their Service too.
const hubPort = 8443

// hubEndpoints is a repeatable flag: where servers reach the hub, in order of preference.
type hubEndpoints []hubEndpoint

type hubEndpoint struct {
	name pki.HubName
	port uint16
}

func (e hubEndpoint) String() string {
	return net.JoinHostPort(e.name.String(), strconv.Itoa(int(e.port)))
}

func (e *hubEndpoints) Set(text string) error {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT: %w", text, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q: %q is no port", text, portText)
	}
	name, err := pki.ParseHubName(host)
	if err != nil {
		return err
	}
	*e = append(*e, hubEndpoint{name, uint16(port)})
	return nil
}

func (e *hubEndpoints) String() string { return strings.Join(e.given(), ",") }

func (*hubEndpoints) Type() string { return "endpoint" }

func (e *hubEndpoints) given() []string {
	texts := make([]string, len(*e))
	for i, endpoint := range *e {
		texts[i] = endpoint.String()
	}
	return texts
}

// texts returns the endpoints as HOST:PORT; if there are none, the hub's Service in the operator's namespace.
func (e *hubEndpoints) texts(namespace string) []string {
	if len(*e) == 0 {
		return []string{fmt.Sprintf("fingerpost-hub.%s.svc:%d", namespace, hubPort)}
	}
	return e.given()
}

// names returns the hosts, for the hub's certificate.
func (e *hubEndpoints) names() []pki.HubName {
	names := make([]pki.HubName, len(*e))
	for i, endpoint := range *e {
		names[i] = endpoint.name
	}
	return names
}
