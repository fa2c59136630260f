#!/bin/bash
# A training on several machines under SLURM: sbatch experiments/slurm.sh, from the repository's folder.
# Change the lines with SBATCH and the layers at the end. docs/several-machines.md says why each line is there.

#SBATCH --job-name=sisug
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4        # one task a GPU: equal to --trainer.devices
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue                  # back into the queue where the machine was taken away,
#SBATCH --signal=SIGTERM@120       # and two minutes before the end, to stop in order
#SBATCH --output=slurm-%j.txt
#SBATCH --open-mode=append

set -euo pipefail
source .venv/bin/activate
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

# The job's number is the run's: put back into the queue, the job goes on in the same folder from its last checkpoint.
srun python -m sisug fit \
  --config experiments/base.yaml \
  --config experiments/rearranger/avatars.yaml \
  --config experiments/generator/avatars.yaml \
  --config experiments/overlays/gpu.yaml \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" \
  --trainer.strategy ddp_find_unused_parameters_true \
  --run.version "job-$SLURM_JOB_ID" --ckpt_path last
