@echo off
rem Called by run_dev.bat and run_prod.bat from the repository's root: finds a Python and makes the environment.
rem Arguments are passed on to training.scripts.environment. Sets VENV_PYTHON.
if not defined POLYVOX_VENV set "POLYVOX_VENV=%CD%\.venv"
set "VENV_PYTHON=%POLYVOX_VENV%\Scripts\python.exe"
set "CHECK=import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
if exist "%VENV_PYTHON%" (
  "%VENV_PYTHON%" -m training.scripts.environment %*
  exit /b
)
if defined POLYVOX_PYTHON (
  "%POLYVOX_PYTHON%" -c "%CHECK%" >nul 2>&1 && (
    "%POLYVOX_PYTHON%" -m training.scripts.environment %*
    exit /b
  )
)
for %%V in (3.12 3.11 3.13) do (
  py -%%V -c "%CHECK%" >nul 2>&1 && (
    py -%%V -m training.scripts.environment %*
    exit /b
  )
)
python -c "%CHECK%" >nul 2>&1 && (
  python -m training.scripts.environment %*
  exit /b
)
echo error: no Python 3.11, 3.12 or 3.13 found: install one, or name its executable in POLYVOX_PYTHON 1>&2
exit /b 2
