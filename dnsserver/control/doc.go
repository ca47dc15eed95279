// Package control is the stream between the hub and the servers: what zones go down, what
// was installed, refused or is held comes up.
//
// Every server opens one gRPC stream to the hub that leads (mTLS; the URI SAN of its
// certificate says of which datacenter and group it is). The hub side is Hub, the server
// side Client; both see zones as zone.Content with a zone.Version. A server keeps what it
// installed in a Replica. A server that starts empty, without a hub, copies from a sibling.
package control
