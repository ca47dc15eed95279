// Package controlplane obtains and runs a real Kubernetes control plane (etcd and kube-apiserver) on this machine, for
// tests and for the demo. Nothing of the product imports it.
//
// Both use Start, and not controller-runtime's envtest, because of what the demo needs and tests are better off with:
// fixed addresses, the API server stopped and started again over the same data, ports that no other process can take
// between their choice and their use, and above all no process that outlives its parent, however that ends; envtest leaves
// API server behind when a test binary is killed or times out. What envtest offers beside that (InstallCRDs, for one)
// works on Config. A test package starts one control plane in TestMain:
//
//	cp, err := controlplane.Start(ctx, controlplane.Options{})
//	if err != nil { ... }
//	defer cp.Stop()
package controlplane
