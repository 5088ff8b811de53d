package main

import "github.com/spf13/cobra"

func (a *app) operatorCommand() *cobra.Command {
	return group("operator", "Operate a cluster", "  locum operator members\n  locum operator step-down -wait 30s",
		a.initCommand(), a.unsealCommand(), a.sealCommand(), a.stepDownCommand(), a.pauseCommand(), a.resumeCommand(), a.maintenanceCommand(), a.membersCommand(), a.historyCommand(),
		a.rotateCommand(), a.keyStatusCommand(), a.generateRootCommand(), a.rekeyCommand(), a.validateCommand(), a.diagnoseCommand(), a.migrateCommand(), a.raftCommand())
}

func (a *app) raftCommand() *cobra.Command {
	return group("raft", "Operate the embedded store", "  locum operator raft list-peers",
		a.listPeersCommand(), a.joinCommand(), a.removePeerCommand(), a.recoverCommand(),
		group("snapshot", "Save and restore the embedded store",
			"  locum operator raft snapshot save locum.snap", a.snapshotSaveCommand(), a.snapshotRestoreCommand()))
}
