"""Language consistency: ten languages against each other, mixtures by hand, what is left out, prompts, cost."""

import itertools
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import solutions
from data.templates import TEMPLATES, render_prompt
from rewards import call_reward
from rewards.language import (
    LANGUAGES,
    LATIN_LANGUAGES,
    count_words,
    guess_language,
    label_language,
    language_code,
    language_reward,
    language_share,
)

ROOT = Path(__file__).parents[2]

REASONING = {
    "en": """Let me read the problem again before I start.
First we add both sides and then divide by two.
The train leaves at noon and needs three hours, so it arrives at 15:00.
Wait, that cannot be right, because the sum would be negative.
Each of the five boxes holds twelve pencils, which makes 60 pencils.
Since the triangle is isosceles, the two base angles are equal.
Now substitute this value into the second equation.
Tom has twice as many apples as Anna.
So the probability is one half.
I should check whether the function is continuous at zero.
Therefore $x$ must be even, and the claim follows by induction.
The remainder is 3.
Multiply the numerator and the denominator by the conjugate.
How many ways are there to choose two of them?
Let us assume that n is prime and look for a contradiction.
We get 42 as the final answer.
The shop sells 15 oranges a day for $2 each.
Both roots are real.
Next, the area of the circle equals pi times the radius squared.
Hmm, I made a mistake in the previous step.""",
    "es": """Voy a leer el problema otra vez antes de empezar.
Primero sumamos los dos lados y luego dividimos entre dos.
El tren sale al mediodía y tarda tres horas, así que llega a las 15:00.
Espera, eso no puede ser correcto, porque la suma sería negativa.
Cada una de las cinco cajas tiene doce lápices, lo que hace 60 lápices.
Como el triángulo es isósceles, los dos ángulos de la base son iguales.
Ahora sustituimos este valor en la segunda ecuación.
Tomás tiene el doble de manzanas que Ana.
Entonces la probabilidad es un medio.
Debo comprobar si la función es continua en cero.
Por lo tanto, $x$ tiene que ser par, y la afirmación se sigue por inducción.
El resto es 3.
Multiplicamos el numerador y el denominador por el conjugado.
¿De cuántas maneras podemos elegir dos de ellos?
Supongamos que n es primo y busquemos una contradicción.
Obtenemos 42 como respuesta final.
La tienda vende 15 naranjas al día por 2 euros cada una.
Las dos raíces son reales.
Después, el área del círculo es pi por el radio al cuadrado.
Vaya, me he equivocado en el paso anterior.""",
    "fr": """Je vais relire le problème avant de commencer.
D'abord, on additionne les deux membres, puis on divise par deux.
Le train part à midi et met trois heures, donc il arrive à 15:00.
Attends, cela ne peut pas être juste, car la somme serait négative.
Chacune des cinq boîtes contient douze crayons, ce qui fait 60 crayons.
Comme le triangle est isocèle, les deux angles à la base sont égaux.
Maintenant, remplaçons cette valeur dans la seconde équation.
Thomas a deux fois plus de pommes qu'Anne.
La probabilité est donc un demi.
Je dois vérifier si la fonction est continue en zéro.
Par conséquent, $x$ doit être pair, et le résultat suit par récurrence.
Le reste est 3.
On multiplie le numérateur et le dénominateur par le conjugué.
De combien de façons peut-on en choisir deux ?
Supposons que n soit premier et cherchons une contradiction.
On obtient 42 comme réponse finale.
Le magasin vend 15 oranges par jour à 2 euros pièce.
Les deux racines sont réelles.
Ensuite, l'aire du cercle vaut pi fois le carré du rayon.
Hélas, je me suis trompé à l'étape précédente.""",
    "de": """Ich lese die Aufgabe noch einmal, bevor ich anfange.
Zuerst addieren wir beide Seiten und teilen dann durch zwei.
Der Zug fährt mittags ab und braucht drei Stunden, also kommt er um 15:00 an.
Moment, das kann nicht stimmen, weil die Summe negativ wäre.
Jede der fünf Schachteln enthält zwölf Stifte, das macht 60 Stifte.
Da das Dreieck gleichschenklig ist, sind die beiden Basiswinkel gleich.
Nun setzen wir diesen Wert in die zweite Gleichung ein.
Thomas hat doppelt so viele Äpfel wie Anna.
Also ist die Wahrscheinlichkeit ein halb.
Ich sollte prüfen, ob die Funktion in null stetig ist.
Daher muss $x$ gerade sein, und die Behauptung folgt durch Induktion.
Der Rest ist 3.
Wir erweitern Zähler und Nenner mit dem Konjugierten.
Wie viele Möglichkeiten gibt es, zwei davon auszuwählen?
Nehmen wir an, dass n eine Primzahl ist, und suchen einen Widerspruch.
Wir erhalten 42 als Ergebnis.
Der Laden verkauft 15 Orangen am Tag für je 2 Euro.
Beide Wurzeln sind reell.
Danach ist die Fläche des Kreises gleich pi mal Radius zum Quadrat.
Leider habe ich im vorigen Schritt einen Fehler gemacht.""",
    "ko": """시작하기 전에 문제를 다시 읽어 보자.
먼저 양변을 더하고 2로 나눈다.
기차는 정오에 떠나고 3시간이 걸리므로 15:00에 도착한다.
잠깐, 합이 음수가 되니까 이건 틀렸다.
따라서 $x$는 짝수이고, 귀납법으로 증명된다.
나머지는 3이다.""",
    "zh": """开始之前，我再读一遍题目。
首先把两边相加，然后除以2。
火车中午出发，需要三个小时，所以15:00到达。
等一下，这不可能是对的，因为和会是负数。
因此$x$一定是偶数，由归纳法可得结论。
余数是3。""",
    "ja": """始める前に、もう一度問題を読みます。
まず両辺を足して、それから2で割ります。
電車は正午に出て3時間かかるので、15:00に着きます。
待って、和が負になるから、これは正しくない。
したがって$x$は偶数であり、帰納法から主張が従う。
合計3。""",
    "ru": """Сначала прочитаю задачу ещё раз.
Сложим обе части и разделим на два.
Поезд выходит в полдень и идёт три часа, поэтому прибывает в 15:00.
Подождите, это неверно, ведь сумма была бы отрицательной.
Значит, $x$ чётно, и утверждение следует по индукции.
Остаток равен 3.""",
    "ar": """سأقرأ المسألة مرة أخرى قبل أن أبدأ.
أولاً نجمع الطرفين ثم نقسم على اثنين.
يغادر القطار عند الظهر ويحتاج إلى ثلاث ساعات، لذلك يصل في 15:00.
انتظر، هذا غير صحيح لأن المجموع سيكون سالباً.
إذن $x$ عدد زوجي، ويتبع الادعاء بالاستقراء.
الباقي هو 3.""",
    "hi": """शुरू करने से पहले मैं प्रश्न फिर से पढ़ता हूँ।
पहले हम दोनों पक्षों को जोड़ते हैं और फिर दो से भाग देते हैं।
रेलगाड़ी दोपहर को चलती है और तीन घंटे लेती है, इसलिए 15:00 पर पहुँचती है।
रुको, यह सही नहीं हो सकता, क्योंकि योग ऋणात्मक होगा।
इसलिए $x$ सम है, और कथन आगमन से सिद्ध होता है।
शेषफल 3 है।""",
}


@pytest.mark.parametrize(("written", "target"), itertools.product(REASONING, REASONING))
def test_each_language_is_itself_and_no_other(written, target):
    share = language_share(REASONING[written], target)
    assert share == (1.0 if written == target else 0.0)


LATIN = [language for language in REASONING if language in LATIN_LANGUAGES]
SINGLE = [(language, line) for language in LATIN for line in REASONING[language].splitlines()]


@pytest.mark.parametrize(("language", "line"), SINGLE)
def test_one_sentence_alone_is_not_held_against_its_own_language(language, line):
    assert language_share(line, language) == 1.0


def test_single_sentences_are_told_apart():
    """A sentence with enough words that are no names passes as no other language; a short one always passes."""
    long_enough = [pair for pair in SINGLE if len(" ".join(filter(str.islower, pair[1].split()))) > 27]
    assert len(long_enough) > 60
    others = [(line, other) for language, line in long_enough for other in LATIN if other != language]
    assert [pair for pair in others if language_share(*pair) > 0.0] == []
    assert language_share("El resto es 3.", "en") == 1.0


EN, ES, DE = (" ".join(REASONING[language].splitlines()[:2]) for language in ("en", "es", "de"))
MIXED = [  # text, target, share: words counted by hand
    ("", "ko", 1.0),
    ("6*7 = 42", "ko", 1.0),
    ("사과를 더한다 so we get 다섯", "ko", 0.5),
    ("사과를 더한다 so we get 다섯", "en", 0.5),
    ("먼저 计算一下这个。 그래서 답은 5이다.", "ko", 4 / 8),  # 计算一下这个: 6 / 1.5 = 4 words
    ("首先计算总和, so the total is 5。", "zh", 4 / 8),
    ("まず足します。然后我们再计算总和。", "ja", 4 / (4 + 9 / 1.5)),
    ("まず足します。然后我们再计算总和。", "zh", 6 / 10),
    ("合計。答えは五です。", "ja", 1.0),
    ("合計。答えは五です。", "zh", 0.0),
    ("Ответ five, потому что sum равна.", "ru", 4 / 6),
    ("Ответ five, потому что sum равна.", "en", 2 / 6),
    ("الجواب هو five ثم نجمع", "ar", 4 / 5),
    ("उत्तर five है", "hi", 2 / 3),
    ("답은 네 개 다. คำตอบคือห้า", "ko", 4 / 5),
    (f"{EN} 그래서 답은 여섯 이다.", "en", 18 / 22),
    (f"{EN}\n{ES}", "en", 18 / 36),
    (f"{EN}\n{ES}", "es", 18 / 36),
]


@pytest.mark.parametrize(("text", "target", "share"), MIXED)
def test_mixtures(text, target, share):
    assert language_share(text, target) == pytest.approx(share, abs=0.001)


LEFT_OUT = {  # what does not count, in a Korean sentence; and what does
    "numbers": ("12345", "1,234.5", "3.5e-4", "0x1F", "½", "²", "①", "4th"),
    "signs": ("x", "π", "αβ", "Δx", "x_1", "3x", "2ab", "xy = 4", "a+bc", "𝑥", "ℝ", "≤", "→"),
    "functions": ("sin", "gcd(12, 18)", "log", "f(x)", "mod 7", "max"),
    "latex": (
        "$x + y$", "$$\\sum_{i} i$$", "\\(the sum\\)", "\\[ the sum \\]", "\\frac{1}{2}", "\\text{the sum}",
        "\\boxed{42}", "$\\text{the sum of all}$", "\\begin{align*} x &= 1 \\\\ \\end{align*}",
    ),
    "code": (
        "`the sum`", "```python\nfor item in items: print(item)\n```", "my_name", "myName", "math.gcd", "print(x)",
    ),
    "units": ("km", "5 km", "5km", "20 cm²", "3 kg", "90 deg"),
    "links": (
        "https://example.com/the/sum", "www.example.com", "someone@example.com", "<think>", "</answer>", "<|user|>",
        "<br/>",
    ),
    "names": ("Tom", "New York", "Anna", "Karl Friedrich Gauss", "O'Brien"),
    "abbreviations": ("RSA", "GCD", "LCM", "AIME", "HTML"),
}  # fmt: skip
COUNTED = (
    "sum", "the sum", "let us add", "Wait,", "so that", "THE ANSWER IS", "Let Us Now Add These", "计算", "итак", "さて",
)  # fmt: skip
FRAMES = ("그래서 {} 이다.", "그래서 {}은 둘 이다.", "因此 {} 是二。", "Итак, {} равно.", "इसलिए {} है।")


@pytest.mark.parametrize("text", [text for group in LEFT_OUT.values() for text in group])
@pytest.mark.parametrize("frame", FRAMES)
def test_what_is_no_word(frame, text):
    target = guess_language(frame)
    assert language_share(frame.format(text), target) == 1.0


@pytest.mark.parametrize("text", COUNTED)
def test_what_is_a_foreign_word(text):
    assert language_share(f"{text} 그래서 답은 둘 이다.", "ko") < 1.0
    if not text.startswith("Wait"):
        assert language_share(f"그래서 답은 {text} 둘 이다.", "ko") < 1.0


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Tom은 사과가 두 개 있다. Anna는 세 개 있다.", "ko"),
        ("Tom有两个苹果。Anna有三个。", "zh"),
        ("Tomは林檎を二つ持つ。", "ja"),
        ("철수 has two apples and 영희 has three of them.", "ko"),
        ("It costs $5 today and tomorrow it will cost $7 or even more.", "en"),
        (
            "Given: Ella > Mina, Paul > Ella. Nobody is above Paul. In turn Paul > Ella, Ella > Mina. So Paul wins.",
            "en",
        ),
        ("Sara > Paul > Rosa > Nina > Jack > Emma > Anna", "en"),
        ("Karl, Emma, Hugo, Rosa, Nina und Otto haben drei Katzen, und jede Katze frisst zwei davon.", "de"),
        ("Rosa loses 141 balloons and Ella buys 3 more.", "en"),
        ("12 marbles + 8 marbles = 20 marbles, 20 marbles - 5 marbles = 15 marbles.", "en"),
        ("In Berlin lebt Anna Schmidt, die drei Katzen und zwei Hunde hat.", "de"),
    ],
)
def test_names_and_money(text, target):
    expected = {"철수": 2 / 10}.get(text.split()[0], 1.0)
    assert language_share(text, target) == pytest.approx(expected)


def test_the_micro_worlds_own_solutions():
    """Written in one language, as far as Hangul tells, they are wholly in it; the mixed ones show as mixed."""
    rng = random.Random(0)
    seen = {"en": 0, "ko": 0, "mixed": 0}
    for _ in range(300):
        task, instance = solutions.draw_pretraining_instance(rng)
        language = rng.choice(("en", "ko"))
        text, *_ = solutions.work_out(task, instance, language, rng.choice(("terse", "careful")), rng)
        hangul, latin = re.search("[가-힣]", text), re.search("[A-Za-z]{2}", text)
        if hangul and latin:
            seen["mixed"] += 1
            assert 0.0 < language_share(text, language) < 1.0
        elif hangul or latin:
            written = "ko" if hangul else "en"
            seen[written] += 1
            assert language_share(text, written) == 1.0
    assert min(seen.values()) >= 5, seen


def test_a_decomposed_or_full_width_spelling_changes_nothing():
    import unicodedata

    for language, text in REASONING.items():
        assert language_share(unicodedata.normalize("NFD", text), language) == 1.0
    assert language_share("Ｔｈｅ ｓｕｍ ｉｓ 그래서", "ko") == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en", "en"), ("EN", "en"), ("en-US", "en"), ("zh_TW", "zh"), ("zh-Hans-CN", "zh"), ("English", "en"),
        (" korean ", "ko"), ("Chinese (Traditional)", "zh"), ("kor", "ko"), ("Español", "es"), ("日本語", "ja"),
        ("Polish", "pl"), ("uk", "uk"), ("python", None), ("cpp", None), ("", None), (None, None), ("c++", None),
        ("klingon", None),
    ],
)  # fmt: skip
def test_names_of_languages(name, code):
    assert language_code(name) == code


def test_an_unknown_target_is_refused():
    with pytest.raises(
        ValueError, match="unknown target language 'klingon': expected one of ar, bg, ca, cs, da, de, en, "
    ):
        language_share("nuqneH", "klingon")


def say(text):
    return [{"role": "assistant", "content": text}]


KO, ENG = "사과를 모두 더한다.", "We add all of the apples together now."


def test_only_the_reasoning_counts():
    completions = [
        f"<think>{KO}</think><answer>{ENG}</answer>",
        f"<think>{ENG}</think>{KO}",
        f"<think>{KO} ",
        f"{KO}</think>{ENG}",
        KO,
        ENG,
        "<think></think><answer>5</answer>",
        "<think> \n </think><answer>5</answer>",
        "",
        "<think>2 + 3 = 5</think><answer>5</answer>",
        f"<think>`</think>` {KO}</think>{ENG}",
    ]
    expected = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    size = len(completions)
    assert language_reward(["?"] * size, completions, language=["ko"] * size) == expected
    assert language_reward(["?"] * size, list(map(say, completions)), language=["Korean"] * size) == expected


def test_a_prefilled_think():
    prompts = ["문제: 1+1은? <think>\n", [{"role": "user", "content": "1+1은 얼마?"}, *say("<think>")]]
    assert language_reward(prompts, [f"{KO}</think>{ENG}"] * 2) == [1.0, 1.0]
    assert language_reward(prompts, [f"{ENG}</think>{KO}"] * 2) == [0.0, 0.0]


QUESTIONS = {
    "en": "How many apples are there in the basket if Anna takes two of them?",
    "ko": "바구니에 사과가 몇 개 있는가?",
    "zh": "篮子里有多少个苹果？",
    "ja": "かごの中にりんごはいくつありますか。",
    "ru": "Сколько яблок в корзине?",
    "ar": "كم عدد التفاحات في السلة؟",
    "hi": "टोकरी में कितने सेब हैं?",
    "es": "¿Cuántas manzanas hay en la cesta si Ana se lleva dos de ellas?",
    "fr": "Combien de pommes y a-t-il dans le panier si Anne en prend deux ?",
    "de": "Wie viele Äpfel liegen im Korb, wenn Anna zwei davon nimmt?",
}


@pytest.mark.parametrize("language", QUESTIONS)
@pytest.mark.parametrize("template", [*TEMPLATES, "chat", "wrapped"])
def test_the_prompts_own_language_is_the_target(language, template):
    question, reasoning = QUESTIONS[language], REASONING[language]
    if template == "chat":
        system = "You are a helpful assistant. Think first, then answer in a box."
        prompt = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    elif template == "wrapped":
        prompt = f"Solve this step by step. Put the answer in \\boxed{{}}.\n\n{question}"
    else:
        prompt = render_prompt(question, template)
    other = "ko" if language != "ko" else "en"
    assert language_reward([prompt] * 2, [reasoning, REASONING[other]]) == [1.0, 0.0]
    assert language_reward([prompt] * 2, [reasoning, REASONING[other]], language=[other] * 2) == [0.0, 1.0]


OTHERS = {
    "cs": "Nejprve sečteme obě strany a vydělíme dvěma, takže výsledek je pět.",
    "fi": "Ensin laskemme yhteen molemmat puolet ja jaamme kahdella, joten tulos on viisi.",
    "hu": "Először összeadjuk a két oldalt, majd elosztjuk kettővel, tehát az eredmény öt.",
    "id": "Pertama kita jumlahkan kedua sisi lalu bagi dua, jadi hasilnya lima.",
    "it": "Prima sommiamo i due lati e poi dividiamo per due, quindi il risultato è cinque.",
    "nl": "Eerst tellen we beide kanten op en delen dan door twee, dus het antwoord is vijf.",
    "pl": "Najpierw dodajemy obie strony i dzielimy przez dwa, więc wynik jest równy pięć.",
    "pt": "Primeiro somamos os dois lados e depois dividimos por dois, logo o resultado é cinco.",
    "ro": "Mai întâi adunăm ambele părți și apoi împărțim la doi, deci rezultatul este cinci.",
    "sv": "Först adderar vi båda sidorna och delar sedan med två, alltså är svaret fem.",
    "tr": "Önce iki tarafı toplayıp ikiye bölüyoruz, bu yüzden sonuç beştir.",
    "vi": "Trước hết ta cộng hai vế rồi chia cho hai, vậy kết quả là năm.",
    "uk": "Спочатку додамо обидві частини і поділимо на два.",
    "fa": "ابتدا دو طرف را جمع می‌کنیم و بعد بر دو تقسیم می‌کنیم.",
}


@pytest.mark.parametrize("language", OTHERS)
def test_more_languages(language):
    text = OTHERS[language]
    assert language_share(text, language) == 1.0
    assert [language_share(text, other) for other in (*LATIN, "ko", "zh")] == [0.0] * 6
    assert language_reward([text], [REASONING["en"]]) == [0.0]
    assert language_reward([text], [text]) == [1.0]


def test_columns():
    prompts, completions = [render_prompt(QUESTIONS["ko"])] * 2, [KO, ENG]
    assert language_reward(prompts, completions, language=["en", "en"]) == [0.0, 1.0]
    assert language_reward(prompts, completions, language=[None, "python"]) == [1.0, 0.0]
    assert language_reward(prompts, completions, problem=[QUESTIONS["en"]] * 2) == [0.0, 1.0]
    assert language_reward(["6*7?", "ขอบคุณครับ"], completions) == [None, None]
    assert language_reward(prompts, completions, language=["th", "el"]) == [None, None]  # no rule for these here
    columns = {"language": ["ko"] * 2, "completion_ids": [[1]] * 2}
    assert call_reward(language_reward, prompts, completions, **columns) == [1.0, 0.0]
    with pytest.raises(ValueError, match="2 completions need as many values in 'language', got 1"):
        language_reward(prompts, completions, language=["ko"])


def test_scripts_need_no_detector():
    """Korean, Chinese, … targets, and English against them while no Latin text is long enough, load nothing."""
    code = (
        "import sys; from rewards.language import language_share as share, guess_language as guess\n"
        f"assert share({KO!r}, 'ko') == 1.0 and share({ENG!r}, 'ko') == 0.0 and share({KO!r}, 'en') == 0.0\n"
        "assert share('Add 2 and 3.', 'en') == 1.0\n"
        "assert guess('6과 7을 곱하면?') == 'ko' and guess('What is 6*7?') == 'en'\n"
        "sys.exit(bool({'py3langid', 'numpy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_missing_detector_says_what_to_install(monkeypatch):
    from rewards import language

    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language._identifier.cache_clear()
    language._detect.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"pip install 'py3langid>=0.4'"):
            language_share(EN, "en")
    finally:
        language._identifier.cache_clear()


@pytest.mark.parametrize("language", REASONING)
def test_a_problem_is_labelled_with_its_language(language):
    """A label is another language than English only if it is certain: a few words, or formulas, say nothing."""
    lines = REASONING[language].splitlines()
    short_han = {"zh"} if language == "ja" else set()
    assert {label_language(line) for line in lines} <= {language, "en"} | short_han
    assert {label_language(f"{first} {second}") for first, second in itertools.pairwise(lines)} == {language}


@pytest.mark.parametrize(
    "text",
    ["", "6*7 = ?", "$x^2 = y$", "sin x", "αβγ = δεζ", "Find αβγ.", "Lorem ipsum dolor sit amet", "P3", "Amanda Díaz",
     "Compute $\\gcd(12, 30)$.", "In triangle ABC, angle BAC = 60.", "Mozzarella cheese is $6 per pound."],
)  # fmt: skip
def test_what_says_no_language_is_labelled_english(text):
    assert label_language(text) == "en"


def test_a_script_without_a_language_here_is_undetermined():
    problem = "Η Άννα έχει 3 μήλα και αγοράζει άλλα 5. Πόσα μήλα έχει τώρα;"
    assert label_language(problem) == "und"
    assert language_reward([problem], ["<think>3 + 5 = 8</think>"], language=["und"]) == [None]


SHARES = st.sampled_from(sorted(LANGUAGES))
LINES = st.lists(st.sampled_from([line for text in REASONING.values() for line in text.splitlines()]), max_size=6)


@given(LINES, SHARES)
def test_a_share_lies_between_zero_and_one_and_more_of_the_target_never_lowers_it(lines, target):
    text = "\n".join(lines)
    share = language_share(text, target)
    assert 0.0 <= share <= 1.0
    if target in REASONING:
        assert language_share(f"{text}\n{REASONING[target]}", target) >= share - 1e-9


@given(st.text(max_size=60), SHARES)
def test_any_text_has_a_share(text, target):
    assert 0.0 <= language_share(text, target) <= 1.0
    assert guess_language(text) in {None, *LANGUAGES}


HOSTILE = [
    "a", "A", "가", "あ", "$", "\\(", "\\[", "\\a{", "`", "```", "<", "<a", "@", "a@", "a.", "a_", "1", "가1", " ",
    "\n", ". ", "Ab ", "AB ", "http://", "/", "\\text{", "( ", "a=", "\u0301", "가a", "𝑥", "ﷺ", "a'", "'", "so ", "aB",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_linear_in_the_length(unit):
    text = unit * (200_000 // len(unit))
    language_share("warm up the detector with a sentence", "en")
    start = time.process_time()
    language_share(text, "en"), language_share(text, "ko")
    assert time.process_time() - start < 3.0


def batch(language, size=512, words=500):
    rng = random.Random(0)
    lines = REASONING[language].splitlines()
    texts = []
    for _ in range(size):
        text, count = [], 0
        while count < words:
            text.append(rng.choice(lines).replace("15", str(rng.randrange(100))))
            count += sum(count_words(text[-1], lambda _: "latin").values())
        texts.append(f"<think>{' '.join(text)}</think><answer>42</answer>")
    return texts


@pytest.mark.parametrize(("language", "target"), [("ko", "ko"), ("en", "ko"), ("zh", "zh"), ("en", "en")])
def test_a_step_of_512_completions_of_500_words_hardly_waits(language, target):
    """0.15 s for Korean and Chinese, 0.45 s for English on an idle core; the bound allows for a very busy one."""
    completions = batch(language)
    start = time.process_time()
    rewards = language_reward(["?"] * 512, completions, language=[target] * 512)
    assert time.process_time() - start < 6.0
    assert set(rewards) == {float(language == target)}
