@echo off
rem run_prod.sh for Windows: environment, data, two models, scores, charts. Options: see run_prod.sh.
rem torch from pip's index is a CPU build on Windows; for a GPU set TORCH_INDEX_URL first, for instance
rem   set TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130
setlocal
set PYTHONUTF8=1
cd /d "%~dp0"
set "CONSENT="
for %%A in (%*) do if /i "%%~A"=="--yes" set "CONSENT=--yes"
call training\scripts\environment.bat --extras demo,lora --title "[1/6] Install dependencies" %CONSENT%
if errorlevel 1 exit /b %errorlevel%
"%VENV_PYTHON%" -m training.cli pipeline --stage prod --installed %*
exit /b %errorlevel%
