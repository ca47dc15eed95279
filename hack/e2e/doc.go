// Package e2e holds the test of the whole: from helm install on real nodes, through restarts, losses, partitions and upgrades
// under a steady load of questions, to an uninstall that leaves nothing. It is told as a story, by make e2e.
package e2e
