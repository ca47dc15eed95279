//go:build linux

// Package cluster runs a real Kubernetes of several nodes on this machine, each standing for a datacenter: kubelet,
// kube-proxy, containerd and runc as on any node, pods in their own networks, and links between the nodes that can be cut. It is
// for development by hand (make cluster-up) and for the tests of the whole (make e2e). It needs root.
//
// A cluster is made of machines: one in the middle that forwards packets (wan), one with the control plane, and one for
// each node. A machine is a process with namespaces of its own (processes, mounts, network, names, System V IPC), of which
// it is the first process. So to kill a machine is to kill that one process: the kernel then ends everything that ran in
// it, unmounts what it had mounted and removes its interfaces, as when a real machine loses power. Its disk, a folder of
// Options.Dir, stays, and starting the machine again is a boot.
//
// What a kubelet would change of the whole computer, it finds already so: files stand over those kernel settings
// in the node's own view of /proc. All that a cluster has outside of Options.Dir and its own namespaces is a folder of control
// groups and, if Options.Host is set, one network interface. Down removes both, also after a crash.
//
// Addresses, of the Nth datacenter (from 1):
//
//	10.88.0.1       the API server, port 6443
//	10.88.0.10+N    the node
//	10.244.N.0/24   its pods
//	10.89.N.0/24    forwarded to the node: free for addresses of Services
//	10.N.0.9        a client that is near to it, at wan
//	10.88.0.254     wan, the way between all of them
//	10.88.0.253     this computer, if Options.Host is set
package cluster
