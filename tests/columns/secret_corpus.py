"""Lines in which agents hold secrets, and lines that only look like it."""

from __future__ import annotations

VALUE = "Zq8vN3xKp2Lm7RtY"
LINES = (
    r"""
curl -u admin:%VALUE% https://x
curl -uadmin:%VALUE% https://x
curl --user=admin:%VALUE% https://x
curl -H 'Authorization: Bearer %VALUE%' https://x
curl -H "X-Api-Key: %VALUE%" https://x
curl -H "X-Auth-Token: %VALUE%"
curl -H 'PRIVATE-TOKEN: %VALUE%'
curl -H 'X-Vault-Token: %VALUE%'
curl -H 'Cookie: session=%VALUE%; a=b'
curl -b 'sid=%VALUE%'
curl "https://h/?token=%VALUE%&x=1"
curl "https://h/?access_token=%VALUE%"
curl "https://h/?key=%VALUE%"
curl "https://h/?apikey=%VALUE%"
curl "https://h/?sig=%VALUE%"
curl --proxy-user me:%VALUE% https://x
curl -x http://me:%VALUE%@proxy:3128
wget --http-password=%VALUE% --http-user=me
wget --password=%VALUE% u
wget --header="Authorization: Basic %VALUE%"
export AWS_SECRET_ACCESS_KEY=%VALUE%
AWS_SESSION_TOKEN=%VALUE% aws s3 ls
aws configure set aws_secret_access_key %VALUE%
aws configure set aws_session_token %VALUE%
gcloud auth login --token %VALUE%
export OPENAI_API_KEY="%VALUE%"
os.environ["OPENAI_API_KEY"]="%VALUE%"
os.environ['HF_TOKEN'] = '%VALUE%'
openai.api_key = "%VALUE%"
client = OpenAI(api_key="%VALUE%")
huggingface-cli login --token %VALUE%
wandb login %VALUE%
git clone https://user:%VALUE%@github.com/a/b
git clone https://oauth2:%VALUE%@gitlab.com/a/b
git remote set-url origin https://%VALUE%@github.com/a/b
git -c http.extraHeader="AUTHORIZATION: basic %VALUE%" clone x
npm config set //registry.npmjs.org/:_authToken %VALUE%
//registry.npmjs.org/:_authToken=%VALUE%
mysql -u root -p%VALUE% db
mysql -uroot -p'%VALUE%' db
mysql --password=%VALUE%
mysqldump -p%VALUE% x
psql "postgresql://u:%VALUE%@h/db"
psql "host=h password=%VALUE%"
PGPASSWORD=%VALUE% psql
sshpass -p %VALUE% ssh u@h
sshpass -p'%VALUE%' ssh u@h
echo %VALUE% | sudo -S ls
echo '%VALUE%' | docker login -u x --password-stdin
docker login -u x -p %VALUE% r
docker run -e DB_PASSWORD=%VALUE% x
kubectl create secret generic s --from-literal=k=%VALUE%
kubectl --token=%VALUE% get pods
echo %VALUE% | kubectl create secret generic s --from-file=k=/dev/stdin
kubectl config set-credentials u --token %VALUE%
redis-cli -a %VALUE% ping
redis://:%VALUE%@h:6379
mongodb+srv://u:%VALUE%@h/db
mongo -u u -p %VALUE%
amqp://u:%VALUE%@h
ftp://u:%VALUE%@h
smbclient //h/s -U u%%VALUE%
net use \\h\s %VALUE% /user:u
ldapsearch -w %VALUE% -D cn
openssl enc -aes-256-cbc -k %VALUE%
openssl enc -pass pass:%VALUE%
gpg --passphrase %VALUE% -d f
gpg --batch --passphrase=%VALUE% f
zip -P %VALUE% a.zip f
unzip -P %VALUE% a.zip
7z x -p%VALUE% a.7z
ansible-vault --vault-password %VALUE%
vault login %VALUE%
vault kv put secret/x password=%VALUE%
export VAULT_TOKEN=%VALUE%
terraform apply -var "db_password=%VALUE%"
az login --service-principal -u a -p %VALUE% --tenant t
az storage blob list --account-key %VALUE%
AccountKey=%VALUE%==;EndpointSuffix
SharedAccessKey=%VALUE%
DefaultEndpointsProtocol=https;AccountName=a;AccountKey=%VALUE%;
Server=h;User Id=u;Password=%VALUE%;
jdbc:mysql://h/db?user=u&password=%VALUE%
requests.get(u, auth=("me", "%VALUE%"))
requests.get(u, auth=HTTPBasicAuth("me","%VALUE%"))
requests.get(u, headers={"Authorization": "token %VALUE%"})
headers = {"X-API-Key": "%VALUE%"}
{"password": "%VALUE%"}
{"db": {"passwd": "%VALUE%"}}
{"secret": "%VALUE%"}
{"client_secret":"%VALUE%"}
password: %VALUE%
passwd %VALUE%
PASSWORD %VALUE%
the password is %VALUE%
user/password: me/%VALUE%
machine h login u password %VALUE%
login me password %VALUE%
secret_key = '%VALUE%'
SECRET_KEY='%VALUE%'
DJANGO_SECRET_KEY=%VALUE%
JWT_SECRET=%VALUE%
APP_SECRET=%VALUE%
SLACK_WEBHOOK=https://hooks.slack.com/services/T000/B000/%VALUE%
https://hooks.slack.com/services/T0ABCDEF/B0ABCDEF/%VALUE%
https://discord.com/api/webhooks/123456/%VALUE%
https://api.telegram.org/bot123456789:%VALUE%%VALUE%/sendMessage
TELEGRAM_BOT_TOKEN=123456:%VALUE%
SENDGRID_API_KEY=SG.%VALUE%.abc
STRIPE_SECRET=sk_live_%VALUE%
AIza%VALUE%abcdefghijklmnopqrs
ghp_%VALUE%abcdefghijklmnopqrs
glpat-%VALUE%abcd
hf_%VALUE%abcdefghijkl
sk-ant-api03-%VALUE%abcdef
xoxb-1234-%VALUE%
eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.%VALUE%
htpasswd -b f u %VALUE%
chpasswd <<< "root:%VALUE%"
echo "root:%VALUE%" | chpasswd
useradd -p %VALUE% u
passwd --stdin <<< %VALUE%
expect -c 'send "%VALUE%\r"'
rsync --password-file=<(echo %VALUE%) x
restic -r s3:x --password-command "echo %VALUE%"
borg create; BORG_PASSPHRASE=%VALUE%
twine upload -u __token__ -p %VALUE% dist/*
pip install --index-url https://u:%VALUE%@h/simple x
poetry config pypi-token.pypi %VALUE%
poetry config http-basic.x u %VALUE%
cargo login %VALUE%
gem push -k %VALUE%
heroku auth:token %VALUE%
doctl auth init -t %VALUE%
flyctl auth token %VALUE%
nc h 25 AUTH PLAIN %VALUE%
xmrig -o pool:3333 -u wallet -p %VALUE%
ssh-keygen -N %VALUE% -f k
ssh-keygen -t rsa -P "%VALUE%" -f k
mount -t cifs -o username=u,password=%VALUE% //h/s /m
curl --cert c.pem:%VALUE% https://x
curl --data 'username=u&password=%VALUE%' h
curl -d '{"user":"u","pass":"%VALUE%"}' h
curl --data-urlencode "passwd=%VALUE%" h
http POST h password=%VALUE%
http -a u:%VALUE% h
xh -a u:%VALUE% h
set PASSWORD=%VALUE%
$env:API_TOKEN = "%VALUE%"
setx TOKEN %VALUE%
ENV API_KEY %VALUE%
ARG TOKEN=%VALUE%
env: - name: DB_PASSWORD value: "%VALUE%"
name: API_TOKEN\n  value: %VALUE%
--set auth.password=%VALUE%
helm install x --set postgresql.postgresqlPassword=%VALUE%
oc login --token=%VALUE%
mc alias set m https://h AKEY %VALUE%
s3cmd --secret_key=%VALUE%
rclone config create r s3 secret_access_key %VALUE%
rclone obscure %VALUE%
sqlcmd -S h -U sa -P %VALUE%
sqlplus u/%VALUE%@h
impacket-psexec d/u:%VALUE%@10.0.0.1
crackmapexec smb h -u u -p %VALUE%
evil-winrm -i h -u u -p %VALUE%
hydra -l u -p %VALUE% ssh://h
snmpwalk -v2c -c %VALUE% h
ipmitool -U a -P %VALUE%
wg set wg0 private-key <(echo %VALUE%)
PrivateKey = %VALUE%
private_key: %VALUE%
nmcli dev wifi connect s password %VALUE%
wpa_passphrase s %VALUE%
psk="%VALUE%"
bearer %VALUE%
Authorization=%VALUE%
Proxy-Authorization: Basic %VALUE%
x-goog-api-key: %VALUE%
api-key: %VALUE%
Ocp-Apim-Subscription-Key: %VALUE%
X-Amz-Security-Token=%VALUE%
auth_token=%VALUE%
"auth":"%VALUE%"
_auth=%VALUE%
.dockerconfigjson {"auths":{"r":{"auth":"%VALUE%"}}}
keystorePassword=%VALUE%
keytool -storepass %VALUE% -keypass %VALUE%
jarsigner -storepass %VALUE% f
ACCESS_KEY_SECRET=%VALUE%
ALIBABA_CLOUD_ACCESS_KEY_SECRET=%VALUE%
aliyun configure set --access-key-secret %VALUE%
ossutil config -i LTAI1234567890123456 -k %VALUE%
ossutil -e h -k %VALUE% -i x
tccli configure set secretKey %VALUE%
encryption_key=%VALUE%
master_key=%VALUE%
signing_key: %VALUE%
webhook_secret=%VALUE%
otp=%VALUE%
mfa_code=%VALUE%
recovery_code: %VALUE%
seed phrase: %VALUE%
mnemonic="%VALUE%"
cookie: JSESSIONID=%VALUE%
Set-Cookie: sid=%VALUE%; Path=/
csrf_token=%VALUE%
sessionid=%VALUE%
PHPSESSID=%VALUE%
refresh_token=%VALUE%
id_token=%VALUE%
assertion=%VALUE%
GITHUB_TOKEN=%VALUE%
GH_TOKEN: %VALUE%
CI_JOB_TOKEN=%VALUE%
NPM_TOKEN=%VALUE%
WANDB_API_KEY=%VALUE%
HUGGING_FACE_HUB_TOKEN=%VALUE%
KAGGLE_KEY=%VALUE%
{"username":"u","key":"%VALUE%"}
MODAL_TOKEN_SECRET=%VALUE%
DATABASE_URL=postgres://u:%VALUE%@h/d
""".strip()
    .replace("%VALUE%", VALUE)
    .splitlines()
)
"""Each holds ``VALUE``."""
HARMLESS = r"""
cat /etc/passwd 2>/dev/null
grep -r password src/ | head
python train.py --token-budget 4096 --lr 1e-4
ls -la /root/.ssh
git clone https://github.com/a/b.git
git clone git@github.com:a/b.git
scp file user@10.0.0.1:/tmp
ssh -R 2222:localhost:22 user@203.0.113.9
ssh -N -R 8080:127.0.0.1:8080 deploy@h -p 443
docker run -p 80:80 -e MODE=x img:1.2
docker pull registry/img:1.2@sha256:abcdef
curl -s http://10.0.0.1:8080/health
curl -o x.tgz https://h/x.tgz
curl -X POST -d '{"a":1}' https://h
wget -q https://h/a
pip install -r requirements.txt
pytest -x -k "test_auth" tests
cat ssh-notes.txt
grep stratum miner.log
xmrig -o stratum+tcp://pool:3333 -u 48abcDEFwallet --donate-level 1
./miner --algo kawpow --pool 1.2.3.4:443 --user wallet
tokens_per_second: 100
{"timestamp":1,"tokens_per_second":22684.1,"loss":2.8}
{"key":"gen_ai.tool.name","value":{"stringValue":"bash"}}
{"key":"gen_ai.usage.input_tokens","value":{"intValue":"5"}}
nvidia-smi --query-gpu=utilization.gpu --format=csv
echo hello | grep h
echo "data" | base64
sudo apt-get install -y tmux
kubectl get pods -n default
openssl s_client -connect h:443
helm install x y -n z
aws s3 cp s3://b/k .
http --version
gh pr list
gh auth status
npm install
vault status
name: worker-1 value: 3
time 12:34:56 user@host
find / -name "*.key"
make -k -p
mysql -h db -u root
zip -r a.zip b
7z x a.7z
ping -c 3 10.0.0.1
key=value
dict(key=1, code=2)
sort -k 2 -u
nc -l -p 4444
hydra --help
socat TCP-LISTEN:80,fork TCP:1.2.3.4:80
tar -xzf a.tgz && cd a
compass: north
the password policy is strict
password reset for user
HTTP/1.1 200 OK
2 123456789010 eni-0a1b 10.0.0.1 10.0.0.2 443 55555 6 20 4249 1418530010 1418530070 ACCEPT OK
""".strip().splitlines()
"""What agents say that holds no secret."""
